"""Refresh tokens: each is good once, and one that comes back ends the sign-in, access tokens included."""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import select, update

from auth import people, refresh_tokens, revocations
from auth.audit_tables import AuditEntry
from auth.refresh_tokens import Refreshed
from auth.roles import Role
from auth.scopes import Scope
from auth.token_tables import RefreshToken, TokenFamily
from model_store.database import Sessions, clock_ms, connect, sessions_of, transaction
from model_store.settings import StoreSettings
from tests.databases import make_tables
from tests.live_gateway import eventually
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway

READING = frozenset({Scope.MODELS_READ, Scope.METRICS_READ})
Both = tuple[QuietGateway, QuietGateway]


@contextlib.contextmanager
def database(url: str) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=url)
    make_tables(settings)
    engine = connect(settings)
    yield sessions_of(engine)
    engine.dispose()


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    with database(f"sqlite:///{tmp_path_factory.mktemp('database') / 'sluice.db'}") as found:
        yield found


@pytest.fixture
def of_each_kind(database_url: str) -> Iterator[Sessions]:
    with database(database_url) as found:
        yield found


def issue(sessions: Sessions, **seconds: int) -> Refreshed:
    with transaction(sessions) as session:
        return refresh_tokens.issue(session, "usr_1", READING, **seconds)


def redeem(sessions: Sessions, text: str) -> Refreshed | None:
    with transaction(sessions) as session:
        return refresh_tokens.redeem(session, text)


def refused(sessions: Sessions) -> frozenset[str]:
    with transaction(sessions, write=False) as session:
        return revocations.load_revoked(session)


def test_a_refresh_token_gives_the_next_one_and_is_used_up(sessions: Sessions):
    first = issue(sessions)
    second = redeem(sessions, first.text)
    assert second is not None
    assert re.fullmatch(r"slr_[A-Za-z0-9_-]{43}", second.text)
    assert second.text != first.text
    assert (second.identity_id, second.scopes, second.family) == ("usr_1", READING, first.family)
    assert redeem(sessions, second.text) is not None
    assert first.family not in refused(sessions)


def test_a_used_token_that_comes_back_ends_the_whole_family(of_each_kind: Sessions):
    sessions = of_each_kind
    first, other = issue(sessions), issue(sessions)
    second = redeem(sessions, first.text)
    assert second is not None
    assert redeem(sessions, first.text) is None
    assert redeem(sessions, second.text) is None, "nobody can tell the thief from the owner"
    assert refused(sessions) == {first.family}
    assert redeem(sessions, other.text) is not None, "another sign-in is another family"


def test_of_two_that_redeem_at_once_one_gets_nothing_and_the_family_ends(of_each_kind: Sessions):
    sessions = of_each_kind
    first = issue(sessions)
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: redeem(sessions, first.text), range(2)))
    assert answers.count(None) == 1
    assert refused(sessions) == {first.family}


def test_a_token_expires_when_idle_and_a_family_in_the_end(sessions: Sessions):
    idle = issue(sessions, idle_seconds=60)
    with transaction(sessions) as session:
        session.execute(
            update(RefreshToken).where(RefreshToken.family == idle.family).values(expires_at=clock_ms(session))
        )
    assert redeem(sessions, idle.text) is None

    lasting = issue(sessions, idle_seconds=3600, life_seconds=60)
    with transaction(sessions) as session:
        row = session.scalars(select(RefreshToken).where(RefreshToken.family == lasting.family)).one()
        family = session.get_one(TokenFamily, lasting.family)
        assert row.expires_at == family.ends_at, "no token outlives its family"
        family.ends_at = clock_ms(session)
        row.expires_at += 3_600_000
    assert redeem(sessions, lasting.text) is None
    assert not {idle.family, lasting.family} & refused(sessions), "an expired token was not stolen"


def test_families_are_forgotten_when_they_have_ended(sessions: Sessions):
    ended = issue(sessions)
    with transaction(sessions) as session:
        session.get_one(TokenFamily, ended.family).ends_at = 1
    issue(sessions)
    with transaction(sessions, write=False) as session:
        assert session.get(TokenFamily, ended.family) is None
        assert session.scalars(select(RefreshToken).where(RefreshToken.family == ended.family)).all() == []


def test_a_sign_in_that_was_revoked_stays_refused_until_its_last_access_token_is_dead(sessions: Sessions):
    # given one that was revoked shortly before its end, when access tokens of it had a while to live
    revoked = issue(sessions)
    with transaction(sessions) as session:
        refresh_tokens.revoke_family(session, revoked.family)
        session.get_one(TokenFamily, revoked.family).ends_at = clock_ms(session)

    # when somebody signs in, which forgets what has ended
    issue(sessions)

    assert revoked.family in refused(sessions)


def test_a_sign_in_that_was_revoked_is_known_as_such_while_jobs_of_it_may_wait(sessions: Sessions):
    # given one that ended twenty hours ago, and had been revoked an hour before
    revoked, kept = issue(sessions), issue(sessions)
    with transaction(sessions) as session:
        refresh_tokens.revoke_family(session, revoked.family)
        for one in (revoked, kept):
            session.get_one(TokenFamily, one.family).ends_at = clock_ms(session) - 20 * 3_600_000
        session.get_one(TokenFamily, revoked.family).revoked_at = clock_ms(session) - 21 * 3_600_000

    # when somebody signs in, which forgets what has ended
    issue(sessions)

    # then gateways need not know of it, and whoever claims a job of it does
    assert revoked.family not in refused(sessions)
    with transaction(sessions, write=False) as session:
        assert [revocations.is_revoked(session, one.family) for one in (revoked, kept)] == [True, False]


def test_all_sign_ins_of_somebody_end_together_and_nobody_elses(sessions: Sessions):
    with transaction(sessions) as session:
        mine = [refresh_tokens.issue(session, "usr_me", READING) for _ in range(3)]
        theirs = refresh_tokens.issue(session, "usr_they", READING)
        refresh_tokens.revoke_all(session, "usr_me")
    assert {one.family for one in mine} <= refused(sessions)
    assert [redeem(sessions, one.text) for one in mine] == [None] * 3
    assert redeem(sessions, theirs.text) is not None


@pytest.mark.parametrize("text", ["", "slr_", f"slr_{'x' * 43}", f"slr_{'x' * 42}\0", "slr_" + "x" * 10_000, "ü"])
def test_what_is_no_refresh_token_is_none(sessions: Sessions, text: str):
    assert redeem(sessions, text) is None


def test_only_hashes_of_refresh_tokens_are_kept(sessions: Sessions):
    issued = issue(sessions)
    with transaction(sessions, write=False) as session:
        row = session.scalars(select(RefreshToken).where(RefreshToken.family == issued.family)).one()
    assert issued.text[4:20] not in repr(vars(row))
    assert issued.text not in repr(issued)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("gateways")
    with quiet_gateway(folder) as one, quiet_gateway(folder) as other:
        yield one, other


class SignedIn:
    """A person who signed in, as the console would have it."""

    def __init__(self, gateway: QuietGateway, role: Role = Role.OPERATOR) -> None:
        self.gateway = gateway
        scopes = READING | {Scope.CLIENTS_ADMIN}
        with transaction(gateway.parts.sessions) as session:
            self.id = people.create(session, f"p-{secrets.token_hex(4)}", role=role).id
            self.first = refresh_tokens.issue(session, self.id, scopes)
        gateway.parts.snapshot.refresh()

    def refresh(self, text: str, **form: str) -> httpx.Response:
        fields = {"grant_type": "refresh_token", "refresh_token": text, **form}
        return self.gateway.http.post("/oauth/token", data=fields)

    def refreshed(self, text: str) -> tuple[str, str]:
        """The next access token and refresh token."""
        answer = self.refresh(text)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"], answer.json()["refresh_token"]


def works(gateway: QuietGateway, token: str) -> bool:
    return gateway.http.get("/v1/models", headers=bearer(token)).status_code == 200


def test_a_person_gets_the_next_tokens_with_the_scopes_of_now(both: Both):
    person = SignedIn(both[0])
    answer = person.refresh(person.first.text, client_id="sluice-console")
    document = answer.json()
    assert set(document) == {"access_token", "token_type", "expires_in", "scope", "refresh_token"}
    assert answer.headers["cache-control"] == "no-store"
    assert document["scope"] == "models:read metrics:read", "the role's and the sign-in's, not what either alone has"
    admin = both[0].client(f"a-{secrets.token_hex(4)}", [Scope.CLIENTS_ADMIN])
    said = both[0].http.post("/oauth/introspect", data={"token": document["access_token"]}, auth=admin).json()
    assert (said["active"], said["sub"], said["client_id"]) == (True, person.id, "sluice-console")
    refresh = both[0].http.post("/oauth/introspect", data={"token": document["refresh_token"]}, auth=admin).json()
    assert (refresh["active"], refresh["sub"]) == (True, person.id)


def test_a_used_refresh_token_ends_access_tokens_at_every_gateway(both: Both):
    one, other = both
    person = SignedIn(one)
    access, text = person.refreshed(person.first.text)
    eventually(lambda: works(other, access))

    answer = person.refresh(person.first.text)

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")
    eventually(lambda: not works(one, access) and not works(other, access))
    assert person.refresh(text).json() == answer.json(), "one text, whatever is wrong"


def test_the_audit_log_says_whose_token_came_back_and_whose_sign_in_ended(both: Both):
    reused, signed_out, by_access = (SignedIn(both[0]) for _ in range(3))
    reused.refreshed(reused.first.text)
    assert reused.refresh(reused.first.text).status_code == 400
    for token in (signed_out.first.text, by_access.refreshed(by_access.first.text)[0]):
        form = {"token": token, "client_id": "sluice-console"}
        assert both[0].http.post("/oauth/revoke", data=form).status_code == 200

    both[0].parts.audit_log.turn(last=True)
    with transaction(both[0].parts.sessions, write=False) as session:
        rows = session.execute(select(AuditEntry.act, AuditEntry.outcome, AuditEntry.identity)).all()
    ended = {("revoke_token", "done", person.id) for person in (signed_out, by_access)}
    assert {("issue_token", "refused", reused.id), *ended} <= {tuple(row) for row in rows}


def test_scopes_are_narrowed_on_request_and_a_wish_too_many_uses_nothing_up(both: Both):
    person = SignedIn(both[0])
    refused = person.refresh(person.first.text, scope="clients:admin")
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_scope")
    assert person.refresh(person.first.text, scope="metrics:read").json()["scope"] == "metrics:read"


@pytest.mark.parametrize("revoked", ["access_token", "refresh_token"])
def test_signing_out_revokes_everything_that_came_of_the_sign_in(both: Both, revoked: str):
    person = SignedIn(both[0])
    access, text = person.refreshed(person.first.text)
    token = access if revoked == "access_token" else text
    stranger = both[0].client(f"s-{secrets.token_hex(4)}", list(Scope))
    both[0].http.post("/oauth/revoke", data={"token": token}, auth=stranger)
    assert works(both[0], access), "somebody else's token is left alone"

    answer = both[0].http.post("/oauth/revoke", data={"token": token, "client_id": "sluice-console"})

    assert answer.status_code == 200
    assert not works(both[0], access)
    assert person.refresh(text).json()["error"] == "invalid_grant"


def test_a_person_who_was_disabled_or_changed_the_password_gets_nothing(both: Both):
    disabled, changed = SignedIn(both[0]), SignedIn(both[0])
    with transaction(both[0].parts.sessions) as session:
        people.set_disabled(session, people.get(session, disabled.id), True)
        # As a release would that does not end the families by itself.
        people.get(session, changed.id).tokens_not_before = clock_ms(session) + 1
        people.bump_generation(session)
    both[0].parts.snapshot.refresh()
    for person in (disabled, changed):
        assert person.refresh(person.first.text).json()["error"] == "invalid_grant"


def test_clients_have_no_use_for_refresh_tokens(both: Both):
    client = both[0].client(f"c-{secrets.token_hex(4)}")
    person = SignedIn(both[0])
    form = {"grant_type": "refresh_token", "refresh_token": person.first.text}
    answers = [
        both[0].http.post("/oauth/token", data=form, auth=client),
        both[0].http.post("/oauth/token", data={**form, "client_id": client[0]}),
    ]
    assert {(answer.status_code, answer.json()["error"]) for answer in answers} == {(400, "unauthorized_client")}
    missing = both[0].http.post("/oauth/token", data={"grant_type": "refresh_token"})
    assert missing.json()["error"] == "invalid_request"
    assert person.refresh(person.first.text).status_code == 200, "nothing of this used it up"
