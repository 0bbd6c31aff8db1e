"""Signing keys in SQL: the first, the next and the end of one, over several gateways, and who is refused over it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth import signing_keys
from auth.errors import KeyNeeded, KeyNotFound, KeysInvalid, MasterKeyWrong
from auth.key_tables import StoredKey
from auth.scopes import Scope
from auth.signing_keys import DAY_MS, TOKEN_MS, KeyState, SigningKeys, state_of
from gateway.health import Health
from model_store.database import Sessions, clock_ms, connect, sessions_of, transaction
from model_store.sealing import SealingKeys
from model_store.settings import StoreSettings
from tests.conftest import RedisServer
from tests.databases import make_tables
from tests.forgery import KEY, OTHER_KEY, RETIRING_KEY
from tests.live_gateway import LiveGateway, live_gateway
from tests.quiet_gateway import quiet_gateway
from tests.test_keys import write_key

MASTER = SealingKeys([b"m" * 32])
OTHER_MASTER = SealingKeys([b"o" * 32])


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings)
    yield sessions_of(engine)
    engine.dispose()


def begin(sessions: Sessions, folder: Path = Path("/nonexistent"), master: SealingKeys = MASTER) -> None:
    with transaction(sessions) as session:
        signing_keys.ensure(session, master, folder)


def rotate(sessions: Sessions, *, compromised: bool = False, publish_seconds: int = 600) -> str:
    with transaction(sessions) as session:
        return signing_keys.rotate(session, MASTER, publish_seconds=publish_seconds, compromised=compromised).kid


def states(sessions: Sessions) -> list[KeyState]:
    with transaction(sessions, write=False) as session:
        now = clock_ms(session)
        return [state_of(row, now) for row in signing_keys.all_keys(session)]


def read(sessions: Sessions, master: SealingKeys = MASTER) -> SigningKeys:
    keys = SigningKeys(master)
    with transaction(sessions, write=False) as session:
        keys.read(session)
    return keys


def age(sessions: Sessions, **times: int) -> None:
    """Gives every key these times, in milliseconds from now."""
    with transaction(sessions) as session:
        now = clock_ms(session)
        for row in session.query(StoredKey):
            for name, offset in times.items():
                setattr(row, name, now + offset)


def test_gateways_that_start_at_once_agree_on_one_key(sessions: Sessions):
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda _: begin(sessions), range(6)))
    assert states(sessions) == [KeyState.SIGNING]
    begin(sessions)
    assert states(sessions) == [KeyState.SIGNING]


def test_files_of_an_earlier_release_are_taken_over_once(sessions: Sessions, tmp_path: Path):
    write_key(tmp_path / "signing.pem", KEY.key)
    write_key(tmp_path / "retiring.pem", RETIRING_KEY.key)
    begin(sessions, tmp_path)
    begin(sessions, tmp_path)
    ring = read(sessions).ring
    assert ring.signing.public.kid == KEY.public.kid
    assert ring.verifying(RETIRING_KEY.public.kid) is not None
    assert states(sessions) == [KeyState.SIGNING, KeyState.RETIRING]


def test_private_parts_lie_sealed_in_the_database_and_erased_when_their_time_is_over(sessions: Sessions):
    begin(sessions)
    with transaction(sessions, write=False) as session:
        row = signing_keys.all_keys(session)[0]
        assert row.sealed is not None
        assert b"PRIVATE" not in row.sealed
        assert MASTER.is_current(row.sealed)
    rotate(sessions)
    age(sessions, verifies_until=-1, created_at=0)
    with transaction(sessions) as session:
        signing_keys.keep(session, MASTER, most_days=0, publish_seconds=600)
        assert [row.sealed for row in signing_keys.all_keys(session)] == [None, None]
        # What they signed long ago can still be verified.
        assert [signing_keys.public_key(row).kid for row in signing_keys.all_keys(session)]


def test_a_new_key_is_published_before_it_signs_and_the_old_one_verifies_until_its_tokens_are_dead(sessions: Sessions):
    begin(sessions)
    old = read(sessions).ring.signing.public.kid
    new = rotate(sessions)
    ring = read(sessions).ring
    assert ring.signing.public.kid == old
    assert ring.verifying(new) is not None
    with transaction(sessions, write=False) as session:
        rows = {row.kid: row for row in signing_keys.all_keys(session)}
    assert rows[old].verifies_until == rows[new].signs_from + TOKEN_MS
    assert rows[new].signs_from >= rows[new].created_at + 600_000


def test_a_compromised_key_ends_at_once_and_the_next_one_signs_when_everybody_knows_it(sessions: Sessions):
    begin(sessions)
    old = read(sessions).ring.signing.public.kid
    new = rotate(sessions, compromised=True)
    keys = read(sessions)
    assert keys.ring.verifying(old) is None
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and states(sessions)[0] is not KeyState.SIGNING:
        time.sleep(0.1)
    assert keys.ring.signing.public.kid == new


def test_no_key_is_rotated_under_another_master_key_unless_theirs_is_lost(sessions: Sessions):
    begin(sessions)
    for compromised in (False, True):
        with transaction(sessions) as session, pytest.raises(MasterKeyWrong, match="SLUICE_MASTER_KEY"):
            signing_keys.rotate(session, OTHER_MASTER, publish_seconds=600, compromised=compromised)
    assert states(sessions) == [KeyState.SIGNING]
    with transaction(sessions) as session:
        new = signing_keys.rotate(session, OTHER_MASTER, publish_seconds=600, master_key_lost=True).kid
    assert states(sessions)[1:] == [KeyState.ENDED]
    assert read(sessions, OTHER_MASTER).ring.verifying(new) is not None


def test_a_gateway_without_a_signing_key_is_not_ready(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        parts = gateway.parts
        for keys, signs in ((parts.keys, True), (SigningKeys(OTHER_MASTER), False)):
            health = Health(parts.snapshot, parts.submission, keys, "default", unsigned_seconds=0)
            time.sleep(0.01)
            assert health.dependencies()["signing_key"] is signs


def test_a_key_is_rotated_by_its_age_and_only_once(sessions: Sessions):
    begin(sessions)
    age(sessions, created_at=-91 * DAY_MS)
    for _ in range(3):
        with transaction(sessions) as session:
            signing_keys.keep(session, MASTER, most_days=90, publish_seconds=600)
    assert states(sessions) == [KeyState.PUBLISHED, KeyState.RETIRING]


def test_one_key_is_withdrawn_but_not_the_only_one_that_signs(sessions: Sessions):
    begin(sessions)
    only = read(sessions).ring.signing.public.kid
    published = rotate(sessions)
    with transaction(sessions) as session, pytest.raises(KeyNeeded):
        signing_keys.withdraw(session, only)
    with transaction(sessions) as session:
        signing_keys.withdraw(session, published)
    assert states(sessions) == [KeyState.ENDED, KeyState.SIGNING], "what was retiring because of it signs on"
    with transaction(sessions) as session, pytest.raises(KeyNotFound):
        signing_keys.withdraw(session, published)


def test_a_key_that_somebody_wrote_into_the_database_verifies_nothing(sessions: Sessions):
    begin(sessions)
    public = OTHER_KEY.public.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    with transaction(sessions) as session:
        known = signing_keys.all_keys(session)[0]
        for voucher in (b"", known.voucher, OTHER_MASTER.seal(b"", b"public key|" + OTHER_KEY.public.kid.encode())):
            session.merge(
                StoredKey(kid=OTHER_KEY.public.kid, public=public, voucher=voucher, created_at=1, signs_from=1)
            )
            session.flush()
            keys = SigningKeys(MASTER)
            keys.read(session)
            assert keys.ring.verifying(OTHER_KEY.public.kid) is None
            assert [key["kid"] for key in keys.ring.jwks()["keys"]] == [known.kid]


def test_under_another_master_key_no_gateway_starts(sessions: Sessions):
    begin(sessions)
    with pytest.raises(KeysInvalid, match="SLUICE_MASTER_KEY"):
        begin(sessions, master=OTHER_MASTER)


def test_keys_are_sealed_again_under_a_new_master_key(sessions: Sessions):
    begin(sessions)
    kid = read(sessions).ring.signing.public.kid
    both = SealingKeys([b"o" * 32, b"m" * 32])
    with transaction(sessions) as session:
        assert signing_keys.reseal(session, both) == 1
        assert signing_keys.reseal(session, both) == 0
    assert read(sessions, OTHER_MASTER).ring.signing.public.kid == kid


class Caller:
    """Somebody who asks both gateways in turn with fresh tokens, for as long as the test runs."""

    def __init__(self, gateways: list[LiveGateway], secret: tuple[str, str]) -> None:
        self.urls = [gateway.url for gateway in gateways]
        self.secret = secret
        self.statuses: list[int] = []
        self.kids: set[str] = set()

    def call(self, stop: threading.Event) -> None:
        with httpx.Client(timeout=30) as http:
            turn = 0
            while not stop.is_set():
                turn += 1
                form = {"grant_type": "client_credentials"}
                answer = http.post(f"{self.urls[turn % 2]}/oauth/token", data=form, auth=self.secret)
                self.statuses.append(answer.status_code)
                token = answer.json()["access_token"]
                self.kids.add(token.partition(".")[0])
                for url in self.urls:
                    asked = http.get(f"{url}/v1/models", headers={"authorization": f"Bearer {token}"})
                    self.statuses.append(asked.status_code)


def test_two_gateways_rotate_under_load_without_a_refused_request(tmp_path: Path, redis_server: RedisServer):
    settings = {"redis_url": redis_server.url, "key_publish_seconds": 2}
    with (
        live_gateway(tmp_path, **settings) as one,
        live_gateway(tmp_path, **settings) as other,
        one.client([Scope.CLIENTS_ADMIN]) as admin,
    ):
        made = admin.post("/admin/clients", json={"name": "caller", "scopes": ["models:read"]}).json()
        other.parts.snapshot.refresh()
        callers = [Caller([one, other], (made["id"], made["client_secret"])) for _ in range(3)]
        stop = threading.Event()
        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(caller.call, stop) for caller in callers]
            for _ in range(2):
                assert admin.post("/admin/keys/rotate").status_code == 201
                time.sleep(5)
            stop.set()
            for call in running:
                call.result(timeout=60)
    assert {status for caller in callers for status in caller.statuses} == {200}
    assert len(set().union(*(caller.kids for caller in callers))) == 3


def test_a_compromised_key_is_refused_also_for_tokens_that_were_accepted_before(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        admin = gateway.headers("admin", [Scope.CLIENTS_ADMIN])
        assert gateway.http.get("/admin/keys", headers=admin).json()["keys"][0]["state"] == "signing"
        rotated = gateway.http.post("/admin/keys/rotate", headers=admin, json={"compromised": True})
        assert rotated.status_code == 201
        refused = gateway.http.get("/admin/keys", headers=admin)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == 'Bearer realm="sluice", error="invalid_token"'


def test_the_routes_of_keys_show_and_end_them(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        admin = gateway.headers("admin", [Scope.CLIENTS_ADMIN])
        made = gateway.http.post("/admin/keys/rotate", headers=admin).json()
        assert made["state"] == "published"
        shown = gateway.http.get("/admin/keys", headers=admin)
        assert [key["state"] for key in shown.json()["keys"]] == ["published", "retiring"]
        assert "PRIVATE" not in shown.text
        assert made["kid"] in gateway.http.get("/.well-known/jwks.json").text
        assert gateway.http.delete(f"/admin/keys/{made['kid']}", headers=admin).json()["state"] == "ended"
        assert made["kid"] not in gateway.http.get("/.well-known/jwks.json").text
        assert gateway.http.delete(f"/admin/keys/{made['kid']}", headers=admin).status_code == 404
        only = shown.json()["keys"][1]["kid"]
        refused = gateway.http.delete(f"/admin/keys/{only}", headers=admin)
        assert (refused.status_code, refused.json()["code"]) == (409, "key_needed")
        assert gateway.http.post("/admin/keys/rotate", headers=admin, json={"now": True}).status_code == 422
