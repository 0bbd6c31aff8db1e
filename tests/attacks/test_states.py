"""A27 and A59 to A69: tokens, secrets and keys that were good once, at two gateways that share a database only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import httpx
import pytest

from auth import clients, signing_keys
from auth.grants import GrantSpec, set_grants
from auth.scopes import Scope
from auth.signing_keys import KeyState
from model_store.database import clock_ms, transaction
from model_store.generation import bump_generation
from tests.attacks.target import Target, target
from tests.attacks.test_forged_tokens import INVALID, REFUSED
from tests.live_gateway import eventually
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway
from tests.rights_kit import queue_job, serve

GRANT = {"grant_type": "client_credentials"}
MODEL = "hidden"


@dataclass
class Pair:
    """A gateway to attack, and another one that is told of nothing."""

    target: Target
    other: QuietGateway

    @property
    def admin(self) -> dict[str, str]:
        return bearer(self.target.token)

    def call(self, method: str, path: str, body: object = None) -> httpx.Response:
        """An act of the administrator's."""
        answer = self.target.gateway.http.request(method, path, json=body, headers=self.admin)
        assert answer.is_success, answer.text
        return answer


@dataclass
class Victim:
    """A client that may administer, and a token of it, which an attacker has."""

    pair: Pair
    name: str
    id: str
    secret: str
    token: str

    def statuses(self, token: str | None = None, path: str = "/admin/clients") -> list[int]:
        """What both gateways answer it."""
        sent = bearer(token or self.token)
        both = (self.pair.target.gateway, self.pair.other)
        return [gateway.http.get(path, headers=sent).status_code for gateway in both]

    def ask(self, path: str, form: dict[str, str], secret: str | None = None) -> httpx.Response:
        """A request of its own to an endpoint of tokens."""
        return self.pair.target.gateway.http.post(path, data=form, auth=(self.id, secret or self.secret))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    with target(folder) as attacked, quiet_gateway(folder) as other:
        serve(attacked.parts, MODEL)
        yield Pair(attacked, other)


@pytest.fixture
def victim(pair: Pair, request: pytest.FixtureRequest) -> Victim:
    name = f"victim-{abs(hash(request.node.name))}"
    scopes = [Scope.CLIENTS_ADMIN, Scope.PREDICT]
    client_id, secret = pair.target.gateway.client(name, scopes)
    made = Victim(pair, name, client_id, secret, pair.target.gateway.token(client_id, secret))
    pair.other.parts.snapshot.refresh()
    assert made.statuses() == [200, 200]
    return made


def revoke(on: Victim) -> None:
    assert on.ask("/oauth/revoke", {"token": on.token}).status_code == 200


def rotate(on: Victim) -> None:
    on.pair.call("POST", f"/admin/clients/{on.id}/rotate")


def rotate_with_grace(on: Victim) -> None:
    on.pair.call("POST", f"/admin/clients/{on.id}/rotate", {"grace_seconds": 600})


def disable(on: Victim) -> None:
    on.pair.call("POST", f"/admin/clients/{on.id}/disable")


def disable_and_enable(on: Victim) -> None:
    disable(on)
    on.pair.call("POST", f"/admin/clients/{on.id}/enable")


def delete(on: Victim) -> None:
    on.pair.call("DELETE", f"/admin/clients/{on.id}")


def delete_and_create(on: Victim) -> None:
    delete(on)
    made = on.pair.call("POST", "/admin/clients", {"name": on.name, "scopes": ["clients:admin"]}).json()
    assert made["id"] != on.id


ENDS: list[tuple[str, str, Callable[[Victim], None]]] = [
    ("A59", "revoked", revoke),
    ("A61", "its client was disabled", disable),
    ("A61", "disabled and enabled again", disable_and_enable),
    ("A62", "its client was deleted", delete),
    ("A63", "its client was made again under its name", delete_and_create),
    ("A64", "its client has another secret", rotate),
    ("A64", "another secret, and the old one is good for a while", rotate_with_grace),
]


@pytest.mark.parametrize(("id", "what", "end"), ENDS, ids=[f"{id} {what}" for id, what, _ in ENDS])
def test_a_token_whose_time_is_over_is_refused_by_every_gateway(
    victim: Victim, id: str, what: str, end: Callable[[Victim], None]
):
    end(victim)
    with victim.pair.target.unchanged():
        answer = victim.pair.target.create_client(f"Bearer {victim.token}".encode())
    assert (answer.status, answer.challenge, answer.json()) == (401, INVALID, REFUSED), (id, what)
    eventually(lambda: victim.statuses() == [401, 401])


def test_a60_a_revoked_token_in_another_spelling_is_refused_and_so_is_the_next_revocation(victim: Victim):
    head, payload, signature = victim.token.split(".")
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = last[last.index(signature[-1]) ^ 1]
    revoke(victim)
    spellings = (
        f"{victim.token}=", f"{victim.token}==", f"{head}=.{payload}.{signature}", f"{head}.{payload}=.{signature}",
        f"{victim.token[:-1]}{other}", f"{victim.token}%3D",
    )  # fmt: skip
    for spelling in spellings:
        with victim.pair.target.unchanged():
            assert victim.pair.target.create_client(f"Bearer {spelling}".encode()).json() == REFUSED
    for scheme in ("bearer", "BEARER"):
        assert victim.pair.target.list_clients(f"{scheme} {victim.token}".encode()).json() == REFUSED


@pytest.mark.parametrize("end", [disable, delete, rotate], ids=["A61 disabled", "A62 deleted", "A64 another secret"])
def test_a_secret_whose_time_is_over_gets_no_token_and_revokes_none(victim: Victim, end: Callable[[Victim], None]):
    end(victim)
    with victim.pair.target.unchanged():
        for path in ("/oauth/token", "/oauth/revoke", "/oauth/introspect"):
            answer = victim.ask(path, {**GRANT, "token": victim.pair.target.token})
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_a64_an_old_secret_is_good_within_its_grace_and_not_after_it(victim: Victim):
    sessions = victim.pair.target.parts.sessions
    rotated = victim.pair.call(
        "POST", f"/admin/clients/{victim.id}/rotate", {"grace_seconds": 600, "keep_tokens": True}
    )
    new = rotated.json()["client_secret"]
    assert [victim.ask("/oauth/token", GRANT, secret).status_code for secret in (victim.secret, new)] == [200, 200]
    assert victim.statuses() == [200, 200], "it was asked to stay"

    with transaction(sessions) as session:
        clients.get(session, victim.id).previous_secret_until = clock_ms(session)

    answer = victim.ask("/oauth/token", GRANT)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
    assert victim.ask("/oauth/token", GRANT, new).status_code == 200


@pytest.mark.parametrize("end", [disable, delete, revoke], ids=["A61 disabled", "A62 deleted", "A59 revoked"])
def test_who_waits_for_a_job_is_not_told_of_it_after_the_token_is_refused(
    victim: Victim, end: Callable[[Victim], None]
):
    gateway = victim.pair.target.gateway
    job = f"/v1/jobs/{queue_job(gateway.parts, victim.id, MODEL)}"
    assert gateway.http.get(f"{job}?wait=0.01", headers=bearer(victim.token)).status_code == 200
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(gateway.http.get, f"{job}?wait=3", headers=bearer(victim.token))
        eventually(lambda: bool(gateway.parts.watch._waiting))
        end(victim)
        answer = waiting.result()
    assert (answer.status_code, answer.json()) == (401, REFUSED)


def test_a66_a_token_of_another_installation_is_refused(victim: Victim, tmp_path_factory: pytest.TempPathFactory):
    with quiet_gateway(tmp_path_factory.mktemp("staging")) as staging:
        token = staging.token(*staging.client("admin", list(Scope)))
        assert staging.http.get("/admin/clients", headers=bearer(token)).status_code == 200
    with victim.pair.target.unchanged():
        assert victim.pair.target.create_client(f"Bearer {token}".encode()).json() == REFUSED
    for claims in ({"iss": "staging"}, {"aud": "staging"}):
        forged = victim.pair.target.signed(claims=victim.pair.target.claims(**claims))
        assert victim.pair.target.list_clients(f"Bearer {forged}".encode()).json() == REFUSED


def test_a67_who_bears_a_token_is_who_it_belongs_to_unless_it_is_bound_to_a_certificate(victim: Victim):
    url = victim.pair.target.gateway.http.base_url
    with httpx.Client(base_url=url, transport=httpx.HTTPTransport(local_address="127.0.0.2")) as elsewhere:
        assert elsewhere.get("/admin/clients", headers=bearer(victim.token)).status_code == 200
    bound, _ = victim.pair.target.parts.issuer.issue(victim.id, {Scope.CLIENTS_ADMIN}, thumbprint="A" * 43)
    claimed = [
        (b"X-Forwarded-Client-Cert", b"Hash=" + b"A" * 43),
        (b"X-SSL-Client-Verify", b"SUCCESS"),
        (b"Client-Cert-Thumbprint", b"A" * 43),
    ]
    for extra in ([], *([header] for header in claimed)):
        sent = [(b"Authorization", f"Bearer {bound}".encode()), *extra]
        answer = victim.pair.target.send("GET", "/admin/clients", sent)
        assert (answer.status, answer.json()) == (401, REFUSED)


def test_a68_a_scope_that_a_client_lost_is_missing_from_its_old_token(victim: Victim):
    with transaction(victim.pair.target.parts.sessions) as session:
        clients.get(session, victim.id).scopes = str(Scope.PREDICT)
        bump_generation(session)
    eventually(lambda: victim.statuses() == [403, 403])
    with victim.pair.target.unchanged():
        answer = victim.pair.target.create_client(f"Bearer {victim.token}".encode())
    assert (answer.status, answer.json()["code"]) == (403, "insufficient_scope")
    assert answer.challenge == 'Bearer realm="sluice", error="insufficient_scope", scope="clients:admin"'


def test_a69_without_its_grant_a_model_is_gone(victim: Victim):
    parts = victim.pair.target.parts
    narrow = victim.pair.target.gateway.token(victim.id, victim.secret, scope="predict")
    with transaction(parts.sessions) as session:
        set_grants(session, victim.id, [GrantSpec(MODEL)])
    eventually(lambda: victim.statuses(narrow, f"/v1/models/{MODEL}/metadata") == [200, 200])
    with transaction(parts.sessions) as session:
        set_grants(session, victim.id, [])
    eventually(lambda: victim.statuses(narrow, f"/v1/models/{MODEL}/metadata") == [404, 404])
    rows = json.dumps({"instances": [[1.0, 2.0]]}).encode()
    answers = []
    for model in (MODEL, "absent"):
        sent = [(b"Authorization", f"Bearer {narrow}".encode()), (b"Content-Type", b"application/json")]
        with victim.pair.target.unchanged():
            answers += [victim.pair.target.send("POST", f"/v1/models/{model}:predict", sent, rows)]
    assert [answer.status for answer in answers] == [404, 404]
    assert answers[0].body.replace(MODEL.encode(), b"absent") == answers[1].body


def test_a27_and_a65_a_key_verifies_for_its_time_and_a_withdrawn_one_for_none(
    tmp_path_factory: pytest.TempPathFactory,
):
    with target(tmp_path_factory.mktemp("keys")) as on:
        token, old = on.token, on.key.public.kid
        sent = f"Bearer {token}".encode()

        # The next key signs; tokens of the one before are still good.
        assert on.gateway.http.post("/admin/keys/rotate", headers=bearer(token)).status_code == 201
        move_on(on, signs_from=-1)
        assert on.key.public.kid != old
        assert on.list_clients(sent).status == 200, "A27: within its time"

        move_on(on, verifies_until=-1)
        with on.unchanged():
            assert on.create_client(sent).json() == REFUSED, "A27: after it"

        # And what signs now turns out to be compromised.
        stolen = on.gateway.token(on.admin_id, on.admin_secret)
        compromised = on.gateway.http.post("/admin/keys/rotate", json={"compromised": True}, headers=bearer(stolen))
        assert compromised.status_code == 201
        with on.unchanged():
            assert on.create_client(f"Bearer {stolen}".encode()).json() == REFUSED, "A65: at once"


def move_on(on: Target, **offsets: int) -> None:
    """Moves what keys are waiting for; in milliseconds from now."""
    with transaction(on.parts.sessions) as session:
        now = clock_ms(session)
        for row in signing_keys.all_keys(session):
            waits = {"signs_from": KeyState.PUBLISHED, "verifies_until": KeyState.RETIRING}
            for name, offset in offsets.items():
                if signing_keys.state_of(row, now) is waits[name]:
                    setattr(row, name, now + offset)
        bump_generation(session)
    on.parts.snapshot.refresh()
