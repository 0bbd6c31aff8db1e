"""`sluice people` and the set-up token, on the database of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from auth import one_time_tokens, people
from auth.one_time_tokens import Purpose
from auth.people_errors import AdministratorExists, LastAdministrator
from model_store.database import connect, sessions_of, transaction
from model_store.settings import StoreSettings
from sluice.cli import app
from tests.databases import make_tables
from tests.people_kit import PASSWORD


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StoreSettings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICE_DATABASE_URL", f"sqlite:///{tmp_path / 'sluice.db'}")
    made = StoreSettings()
    make_tables(made)
    return made


def sluice(*arguments: str, text: str = "") -> Result:
    return CliRunner().invoke(app, arguments, input=text)


def test_the_set_up_token_is_printed_until_there_is_an_administrator(settings: StoreSettings):
    first, second = sluice("admin", "setup-token"), sluice("admin", "setup-token")
    assert (first.exit_code, second.exit_code) == (0, 0)
    tokens = [printed.stdout.split()[0] for printed in (first, second)]
    engine = connect(settings)
    with transaction(sessions_of(engine)) as session:
        for token, good in zip(tokens, (False, True), strict=True):
            try:
                assert one_time_tokens.look_up(session, token, Purpose.SETUP) is None
                assert good
            except one_time_tokens.OneTimeTokenInvalid:
                assert not good
    engine.dispose()
    assert sluice("people", "add", "ada", "--role", "admin", text=f"{PASSWORD}\n").exit_code == 0
    assert isinstance(sluice("admin", "setup-token").exception, AdministratorExists)


def test_people_get_roles_tokens_and_ends_and_the_last_administrator_stays(settings: StoreSettings):
    for name, role in (("ada", "admin"), ("grace", "operator")):
        assert sluice("people", "add", name, "--role", role, text=f"{PASSWORD}\n").exit_code == 0
    assert sluice("people", "role", "grace", "auditor").exit_code == 0
    assert sluice("people", "disable", "grace").exit_code == 0
    for refused in (("role", "ada", "reader"), ("disable", "ada")):
        assert isinstance(sluice("people", *refused).exception, LastAdministrator)
    assert sluice("people", "enable", "grace").exit_code == 0
    assert sluice("people", "remove-second-factor", "grace").exit_code == 0
    token = sluice("people", "password-token", "grace").stdout.split()[0]
    listed = sluice("people", "list").stdout
    engine = connect(settings)
    with transaction(sessions_of(engine)) as session:
        grace = people.named(session, "grace")
        assert grace.role == "auditor"
        assert one_time_tokens.spend(session, token, Purpose.PASSWORD) == grace.id
        assert {"ada", "grace", grace.id, "auditor"} <= set(listed.split())
    engine.dispose()
