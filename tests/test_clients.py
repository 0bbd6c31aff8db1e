"""Clients on both databases: secrets, revocation, and the answers to wrong credentials."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from auth import clients, grants
from auth.errors import ClientAuthenticationFailed, ClientExists, ClientNotFound, ScopeInvalid
from auth.grants import GrantSpec
from auth.rights import load_rights
from auth.scopes import DEFAULT, Scope, format_scopes, known_scopes, parse_scopes
from auth.settings import AuthSettings
from auth.tables import Client, Grant
from model_store.database import Sessions, clock_ms, connect, sessions_of, transaction
from model_store.errors import NameInvalid
from model_store.registry import read_generation
from model_store.settings import StoreSettings
from tests.databases import make_tables

PEPPER = b"p" * 32
SCOPES = frozenset({Scope.PREDICT, Scope.JOBS})


@pytest.fixture
def sessions(database_url: str) -> Iterator[Sessions]:
    settings = StoreSettings(database_url=database_url)
    make_tables(settings)
    engine = connect(settings)
    yield sessions_of(engine)
    engine.dispose()


def create(sessions: Sessions, name: str = "reading-room") -> tuple[str, str]:
    with transaction(sessions) as session:
        client, secret = clients.create(session, name, SCOPES, PEPPER)
        return client.id, secret


def authenticates(sessions: Sessions, client_id: str, secret: str, pepper: bytes = PEPPER) -> bool:
    with transaction(sessions, write=False) as session:
        try:
            return clients.authenticate(session, client_id, secret, pepper).id == client_id
        except ClientAuthenticationFailed:
            return False


def generation(sessions: Sessions) -> int:
    with transaction(sessions, write=False) as session:
        return read_generation(session)


def test_a_new_client_authenticates_with_its_secret(sessions: Sessions):
    client_id, secret = create(sessions)
    assert client_id.startswith("cli_")
    assert secret.startswith("sls_")
    assert len(secret) >= 4 + 43, "256 bits"
    assert authenticates(sessions, client_id, secret)


def test_neither_the_secret_nor_a_hash_without_the_key_is_stored(sessions: Sessions):
    client_id, secret = create(sessions)
    with transaction(sessions, write=False) as session:
        row = clients.get(session, client_id)
        assert secret not in vars(row).values()
        assert len(bytes.fromhex(row.secret_hash)) == 32
    assert not authenticates(sessions, client_id, secret, pepper=b"q" * 32)


def test_two_clients_share_nothing(sessions: Sessions):
    first, second = create(sessions, "first"), create(sessions, "second")
    assert first[0] != second[0]
    assert not authenticates(sessions, first[0], second[1])
    assert not authenticates(sessions, second[0], first[1])


def test_an_unknown_client_is_refused(sessions: Sessions):
    _, secret = create(sessions)
    unknown = [
        "",
        "cli_unknown",
        "cli_",
        "reading-room",
        "cli_\0",
        "cli_ä",
        "cli_" + "a" * 5000,
        "' OR 1=1--",
        "cli_\ud800",
    ]
    for client_id in unknown:
        assert not authenticates(sessions, client_id, secret)


def test_a_changed_secret_is_refused(sessions: Sessions):
    client_id, secret = create(sessions)
    for changed in (secret.upper(), secret + " ", secret[:-1], "", secret + "\ud800", secret + "\0"):
        assert not authenticates(sessions, client_id, changed)


def test_every_refusal_reads_the_same(sessions: Sessions):
    client_id, secret = create(sessions)
    disabled_id, disabled_secret = create(sessions, "disabled")
    with transaction(sessions) as session:
        clients.set_disabled(session, disabled_id, True)
    texts = set()
    with transaction(sessions, write=False) as session:
        for sent in ((client_id, "wrong"), ("cli_unknown", secret), (disabled_id, disabled_secret)):
            with pytest.raises(ClientAuthenticationFailed) as refused:
                clients.authenticate(session, *sent, PEPPER)
            texts.add((refused.value.status, refused.value.code, refused.value.message, refused.value.challenge))
    assert len(texts) == 1


def test_a_rotated_secret_replaces_the_old_one_and_revokes_tokens(sessions: Sessions):
    client_id, old = create(sessions)
    with transaction(sessions) as session:
        moment = clients.issue_moment(session, clients.get(session, client_id).tokens_not_before)
        new = clients.rotate_secret(session, client_id, PEPPER)
    assert not authenticates(sessions, client_id, old)
    assert authenticates(sessions, client_id, new)
    with transaction(sessions, write=False) as session:
        assert moment * 1000 < clients.get(session, client_id).tokens_not_before


def test_a_token_issued_right_after_a_revocation_is_good(sessions: Sessions):
    client_id, _ = create(sessions)
    with transaction(sessions) as session:
        clients.rotate_secret(session, client_id, PEPPER)
        client = clients.get(session, client_id)
        moment = clients.issue_moment(session, client.tokens_not_before)
        assert client.tokens_not_before <= moment * 1000 <= clock_ms(session) + 1000


def test_revocations_within_one_second_revoke_what_was_issued_between_them(sessions: Sessions):
    client_id, _ = create(sessions)
    with transaction(sessions) as session:
        for _ in range(5):
            between = clients.issue_moment(session, clients.get(session, client_id).tokens_not_before)
            clients.rotate_secret(session, client_id, PEPPER)
            assert between * 1000 < clients.get(session, client_id).tokens_not_before


def test_a_disabled_client_is_refused_and_an_enabled_one_needs_a_new_token(sessions: Sessions):
    client_id, secret = create(sessions)
    with transaction(sessions) as session:
        before = clients.issue_moment(session, clients.get(session, client_id).tokens_not_before)
        clients.set_disabled(session, client_id, True)
    assert not authenticates(sessions, client_id, secret)

    with transaction(sessions) as session:
        client = clients.set_disabled(session, client_id, False)
        assert before * 1000 < client.tokens_not_before
    assert authenticates(sessions, client_id, secret)


def test_disabling_twice_changes_nothing_the_second_time(sessions: Sessions):
    client_id, _ = create(sessions)
    with transaction(sessions) as session:
        first = clients.set_disabled(session, client_id, True).tokens_not_before
        assert clients.set_disabled(session, client_id, True).tokens_not_before == first


def test_a_deleted_client_is_gone_with_its_grants(sessions: Sessions):
    client_id, secret = create(sessions)
    with transaction(sessions) as session:
        grants.set_grants(session, client_id, [GrantSpec("mnist")])
    with transaction(sessions) as session:
        clients.delete(session, client_id)
    assert not authenticates(sessions, client_id, secret)
    with transaction(sessions, write=False) as session:
        assert session.scalars(select(Grant)).all() == []
        with pytest.raises(ClientNotFound):
            clients.get(session, client_id)


def test_a_client_of_the_same_name_is_another_client(sessions: Sessions):
    first, secret = create(sessions)
    with transaction(sessions) as session:
        clients.delete(session, first)
    second, _ = create(sessions)
    assert first != second
    assert not authenticates(sessions, second, secret)


def test_a_name_is_taken_once(sessions: Sessions):
    create(sessions)
    with pytest.raises(ClientExists):
        create(sessions)


def test_a_name_against_the_rule_is_refused(sessions: Sessions):
    for name in ("", ".hidden", "a b", "a\n", "ä", "a" * 129, "a/b", "a\0"):
        with pytest.raises(NameInvalid):
            create(sessions, name)


def test_a_client_without_any_scope_is_refused(sessions: Sessions):
    with pytest.raises(ScopeInvalid), transaction(sessions) as session:
        clients.create(session, "nobody", frozenset(), PEPPER)


def test_every_change_counts_up_the_generation(sessions: Sessions):
    seen = [generation(sessions)]
    client_id, _ = create(sessions)
    seen.append(generation(sessions))
    for change in (
        lambda session: clients.rotate_secret(session, client_id, PEPPER),
        lambda session: clients.set_disabled(session, client_id, True),
        lambda session: grants.set_grants(session, client_id, []),
        lambda session: clients.delete(session, client_id),
    ):
        with transaction(sessions) as session:
            change(session)
        seen.append(generation(sessions))
    assert seen == sorted(set(seen)), "each number is higher than the one before"


def test_no_unknown_client_can_be_changed(sessions: Sessions):
    changes: list[Callable[[Session, str], object]] = [
        lambda session, client_id: clients.rotate_secret(session, client_id, PEPPER),
        lambda session, client_id: clients.set_disabled(session, client_id, True),
        clients.delete,
        clients.get,
    ]
    for change in changes:
        for client_id in ("cli_unknown", "", "x\0y"):
            with pytest.raises(ClientNotFound), transaction(sessions) as session:
                change(session, client_id)


def test_pages_together_hold_every_client_once(sessions: Sessions):
    names = [f"client-{number:02}" for number in range(7)]
    for name in reversed(names):
        create(sessions, name)
    found: list[str] = []
    with transaction(sessions, write=False) as session:
        while page := clients.page(session, after=found[-1] if found else "", limit=3):
            found += [client.name for client in page]
    assert found == names


def test_a_scope_written_by_a_newer_release_is_passed_over(sessions: Sessions):
    client_id, _ = create(sessions)
    with transaction(sessions) as session:
        session.execute(update(Client).where(Client.id == client_id).values(scopes="predict imagine"))
    with transaction(sessions, write=False) as session:
        assert load_rights(session).clients[client_id].scopes == {Scope.PREDICT}


def test_scopes_are_read_strictly_and_written_in_one_order():
    assert parse_scopes("jobs predict jobs") == {Scope.PREDICT, Scope.JOBS}
    assert format_scopes({Scope.JOBS, Scope.MODELS_READ, Scope.PREDICT}) == "predict jobs models:read"
    assert format_scopes(DEFAULT) == "predict jobs models:read"
    assert known_scopes("predict  imagine") == {Scope.PREDICT}
    for text in (
        "",
        " ",
        "predict ",
        " predict",
        "predict  jobs",
        "predict\tjobs",
        "Predict",
        "predict,jobs",
        'predict"',
    ):
        with pytest.raises(ScopeInvalid):
            parse_scopes(text)


def test_the_key_of_the_secrets_has_no_default_and_must_be_long(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLUICE_CLIENT_SECRET_KEY", raising=False)
    with pytest.raises(ValueError, match="client_secret_key"):
        AuthSettings()
    with pytest.raises(ValueError, match="client_secret_key"):
        AuthSettings(client_secret_key="s" * 31, master_key="m" * 43)
    settings = AuthSettings(client_secret_key="s" * 32, master_key="m" * 43)
    assert settings.pepper == b"s" * 32
    assert "ssss" not in repr(settings)
