"""Grants on both databases: the picture in memory and the question at the claim of a job always agree."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy.orm import Session

from auth import clients, grants
from auth.errors import ClientNotFound, GrantInvalid
from auth.grants import ADMINISTRATION, USE, Action, GrantSpec
from auth.rights import implicit_grants, load_rights
from auth.roles import Role
from auth.scopes import Scope
from auth.standing import Standing, Withdrawal, withdrawn_now
from model_store.database import Sessions, clock_ms, connect, sessions_of, transaction
from model_store.errors import NameInvalid
from model_store.settings import StoreSettings
from model_store.tables import Label, Model, State, Version
from tests.databases import make_tables

PREDICT, SUBMIT = frozenset({Action.PREDICT}), frozenset({Action.SUBMIT})
LABELS = {"stable": 1, "canary": 2}


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    """Versions 1 to 3 of `mnist` and of `linear`; `stable` is 1 and `canary` 2 of both."""
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings)
    made = sessions_of(engine)
    with transaction(made) as session:
        for model in ("mnist", "linear"):
            session.add(Model(name=model, last_version=3))
            session.flush()
            for number in (1, 2, 3):
                session.add(
                    Version(
                        model=model, number=number, state=State.AVAILABLE.value, format="keras", digest="d",
                        size_bytes=1, uploaded_by="cli_admin",
                    )
                )  # fmt: skip
            session.flush()
            for label, number in LABELS.items():
                session.add(Label(model=model, name=label, version=number))
    yield made
    engine.dispose()


@pytest.fixture
def client_id(sessions: Sessions) -> str:
    with transaction(sessions) as session:
        return clients.create(session, "reading-room", {Scope.PREDICT}, b"p" * 32)[0].id


def allowed(sessions: Sessions, client_id: str) -> set[tuple[str, str, int]]:
    """Every action, model and version that is allowed; asserts that both ways of asking agree on each."""
    found = set()
    with transaction(sessions, write=False) as session:
        rights = load_rights(session).clients[client_id]
        now = clock_ms(session)
        for action, model, version in itertools.product(Action, ("mnist", "linear"), (1, 2, 3)):
            labels = [label for label, number in LABELS.items() if number == version]
            in_memory = rights.rule(action, model, version, labels, now)
            withdrawn, _ = withdrawn_now(session, (client_id, action, model, version, None), now)
            assert (in_memory is None) == (withdrawn is not None), (action, model, version)
            assert rights.sees(model, now) or in_memory is None
            if withdrawn is None:
                found.add((str(action), model, version))
    return found


def withdrawn(session: Session, client_id: str, action: str, model: str, version: int) -> Withdrawal | None:
    return withdrawn_now(session, (client_id, action, model, version, None), clock_ms(session))[0]


def grant(sessions: Sessions, client_id: str, *specs: GrantSpec) -> None:
    with transaction(sessions) as session:
        grants.set_grants(session, client_id, specs)


def test_without_a_grant_nothing_is_allowed(sessions: Sessions, client_id: str):
    assert allowed(sessions, client_id) == set()


def test_a_grant_for_a_model_covers_all_its_versions(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("mnist", actions=PREDICT))
    assert allowed(sessions, client_id) == {("predict", "mnist", version) for version in (1, 2, 3)}


def test_a_grant_for_a_version_covers_no_other(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("mnist", version=2))
    assert allowed(sessions, client_id) == {(str(action), "mnist", 2) for action in USE}


def test_a_grant_for_a_label_follows_the_label(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("mnist", label="canary", actions=SUBMIT))
    assert allowed(sessions, client_id) == {("submit", "mnist", 2)}

    with transaction(sessions) as session:
        session.merge(Label(model="mnist", name="canary", version=3))
    with transaction(sessions, write=False) as session:
        assert withdrawn(session, client_id, "submit", "mnist", 2)
        assert not withdrawn(session, client_id, "submit", "mnist", 3)


def test_a_grant_for_a_label_that_does_not_exist_covers_nothing(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("mnist", label="shadow"))
    assert allowed(sessions, client_id) == set()


def test_several_grants_add_up(sessions: Sessions, client_id: str):
    grant(
        sessions,
        client_id,
        GrantSpec("mnist", version=3, actions=PREDICT),
        GrantSpec("mnist", label="stable", actions=SUBMIT),
        GrantSpec("linear", version=1, actions=PREDICT),
        GrantSpec("linear", version=1, actions=SUBMIT),
    )
    assert allowed(sessions, client_id) == {
        ("predict", "mnist", 3), ("submit", "mnist", 1), ("predict", "linear", 1), ("submit", "linear", 1),
    }  # fmt: skip


def test_new_grants_replace_all_old_ones(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("mnist"))
    grant(sessions, client_id, GrantSpec("linear", version=1, actions=PREDICT))
    assert allowed(sessions, client_id) == {("predict", "linear", 1)}
    with transaction(sessions, write=False) as session:
        assert grants.grants_of(session, client_id) == [GrantSpec("linear", 1, None, PREDICT)]


def test_a_disabled_or_deleted_client_may_do_nothing_now(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("mnist"))
    with transaction(sessions) as session:
        clients.set_disabled(session, client_id, True)
        assert withdrawn(session, client_id, "predict", "mnist", 1)
        clients.set_disabled(session, client_id, False)
        assert not withdrawn(session, client_id, "predict", "mnist", 1)
        clients.delete(session, client_id)
        assert withdrawn(session, client_id, "predict", "mnist", 1)


def test_a_pattern_covers_every_model_that_it_matches(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("mn*", actions=PREDICT), GrantSpec("*", version=2, actions=SUBMIT))
    assert allowed(sessions, client_id) == {("predict", "mnist", version) for version in (1, 2, 3)} | {
        ("submit", model, 2) for model in ("mnist", "linear")
    }


def test_an_expired_grant_allows_nothing_and_another_that_lasts_still_does(sessions: Sessions, client_id: str):
    with transaction(sessions, write=False) as session:
        now = clock_ms(session)
    grant(
        sessions,
        client_id,
        GrantSpec("mnist", actions=PREDICT, expires_at=now - 1),
        GrantSpec("mnist", version=1, actions=PREDICT, expires_at=now + 3_600_000),
    )
    assert allowed(sessions, client_id) == {("predict", "mnist", 1)}
    with transaction(sessions, write=False) as session:
        found = load_rights(session).clients[client_id]
    assert found.sees("mnist", now + 3_599_999)
    assert not found.sees("mnist", now + 3_600_000)


def test_why_a_job_may_not_run_any_more_is_told_apart(sessions: Sessions, client_id: str):
    with transaction(sessions) as session:
        grants.set_grants(session, client_id, [GrantSpec("mnist", expires_at=clock_ms(session) - 1)])
        assert withdrawn(session, client_id, "submit", "mnist", 1) is Withdrawal.GRANT_EXPIRED
        assert withdrawn(session, client_id, "submit", "linear", 1) is Withdrawal.GRANT_WITHDRAWN
        clients.set_disabled(session, client_id, True)
        assert withdrawn(session, client_id, "submit", "mnist", 1) is Withdrawal.CLIENT_DISABLED
        clients.delete(session, client_id)
        assert withdrawn(session, client_id, "submit", "mnist", 1) is Withdrawal.CLIENT_DELETED


def test_what_is_remembered_of_a_grant_ends_with_it(sessions: Sessions, client_id: str):
    standing = Standing()
    with transaction(sessions) as session:
        end = clock_ms(session) + 3_600_000
        grants.set_grants(session, client_id, [GrantSpec("mnist", expires_at=end)])
        asked = (client_id, "submit", "mnist", 1, None)
        assert standing.withdrawn(session, (1, end - 1), asked) is None
        assert standing.withdrawn(session, (1, end), asked) is Withdrawal.GRANT_EXPIRED
        assert standing.withdrawn(session, (1, end + 1), asked) is Withdrawal.GRANT_EXPIRED


def test_a_grant_that_stays_keeps_its_id(sessions: Sessions, client_id: str):
    def ids() -> dict[str, int | None]:
        with transaction(sessions, write=False) as session:
            return {spec.model: spec.id for spec in grants.grants_of(session, client_id)}

    grant(sessions, client_id, GrantSpec("mnist"), GrantSpec("linear"))
    before = ids()
    grant(sessions, client_id, GrantSpec("text-*"), GrantSpec("mnist", actions=PREDICT))
    assert ids() == {"mnist": before["mnist"], "text-*": ids()["text-*"]}
    assert allowed(sessions, client_id) == {("predict", "mnist", version) for version in (1, 2, 3)}


def test_who_administers_clients_administers_models_without_a_grant_but_uses_none(sessions: Sessions):
    with transaction(sessions) as session:
        chief = clients.create(session, "chief", {Scope.CLIENTS_ADMIN, Scope.MODELS_WRITE}, b"p" * 32)[0].id
        found = load_rights(session).clients[chief]
    allowed_to = {action for action in Action if found.rule(action, "mnist", 1, (), 1)}
    assert allowed_to == ADMINISTRATION
    assert found.sees_everything(1)
    # A token that lacks the scope does not have what follows from it.
    narrow = found.narrowed({Scope.MODELS_WRITE})
    assert not any(narrow.rule(action, "mnist", 1, (), 1) for action in Action)
    assert found.narrowed(found.scopes) is found


def test_roles_of_people_stand_for_grants_and_who_serves_a_model_may_try_it():
    actions = {role: set().union(*(grant.actions for grant in implicit_grants(role))) for role in Role}
    assert actions == {
        Role.ADMIN: ADMINISTRATION | USE,
        Role.OPERATOR: ADMINISTRATION | USE,
        Role.AUDITOR: {Action.METADATA},
        Role.READER: {Action.METADATA},
    }
    assert all(grant.rule == f"role {role}" for role in Role for grant in implicit_grants(role))
    assert implicit_grants("emperor") == ()


def test_a_grant_may_come_before_its_model(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("tomorrow"))
    with transaction(sessions, write=False) as session:
        assert not withdrawn(session, client_id, "predict", "tomorrow", 1)


def test_a_grant_that_makes_no_sense_is_refused(sessions: Sessions, client_id: str):
    for spec in (
        GrantSpec("mnist", version=1, label="stable"),
        GrantSpec("mnist", version=0),
        GrantSpec("mnist", version=2**31),
        GrantSpec("mnist", actions=frozenset()),
        GrantSpec("mnist", version=1, actions=frozenset({Action.UPLOAD})),
        GrantSpec("mnist", label="stable", actions=ADMINISTRATION),
        GrantSpec("mnist", version=1, actions=frozenset({Action.LABEL})),
        GrantSpec("mnist", expires_at=0),
        GrantSpec("mnist", expires_at=2**63),
    ):
        with pytest.raises(GrantInvalid):
            grant(sessions, client_id, spec)


def test_a_grant_for_what_cannot_be_a_name_is_refused(sessions: Sessions, client_id: str):
    for spec in (
        GrantSpec(""),
        GrantSpec("a b"),
        GrantSpec("-*"),
        GrantSpec("a/*"),
        GrantSpec("mnist", label="*"),
        GrantSpec("mnist", label="a/b"),
        GrantSpec("a\0"),
    ):
        with pytest.raises(NameInvalid):
            grant(sessions, client_id, spec)


def test_a_client_has_a_bounded_number_of_grants(sessions: Sessions, client_id: str):
    with pytest.raises(GrantInvalid, match="at most 1000"):
        grant(sessions, client_id, *(GrantSpec("mnist", version=number) for number in range(1, 1002)))


def test_a_client_has_few_patterns(sessions: Sessions, client_id: str):
    with pytest.raises(GrantInvalid, match="at most 100 grants with patterns"):
        grant(sessions, client_id, *(GrantSpec(f"team-{number}-*") for number in range(101)))


def test_an_unknown_client_gets_no_grants(sessions: Sessions):
    with pytest.raises(ClientNotFound):
        grant(sessions, "cli_unknown", GrantSpec("mnist"))


def test_the_picture_of_rights_holds_what_admission_asks_for(sessions: Sessions, client_id: str):
    grant(sessions, client_id, GrantSpec("mnist"))
    with transaction(sessions, write=False) as session:
        found = load_rights(session).clients[client_id]
        now = clock_ms(session)
    assert (found.id, found.name, found.disabled) == (client_id, "reading-room", False)
    assert (found.scopes, found.tokens_not_before) == ({Scope.PREDICT}, 0)
    assert found.sees("mnist", now)
    assert not found.sees("linear", now)
