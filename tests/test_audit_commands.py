"""`sluice audit …` as somebody types it."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from auth import signing_keys
from auth.audit_heads import read_head
from gateway.audit_log import AuditLog
from gateway.settings import GatewaySettings
from model_store.database import connect, sessions_of, transaction
from model_store.migrations import migrate
from sluice.cli import app
from tests.audit_kit import act, sqlite_url

SECRETS = {"client_secret_key": "k" * 32, "master_key": "m" * 43}


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with three entries, sealed and signed by a gateway that has ended since."""
    for name, value in {**SECRETS, "database_url": sqlite_url(tmp_path)}.items():
        monkeypatch.setenv(f"SLUICE_{name.upper()}", value)
    settings = GatewaySettings(keys_dir=tmp_path / "keys")
    migrate(settings)
    engine = connect(settings)
    keys = signing_keys.SigningKeys(settings.master_keys)
    with transaction(sessions_of(engine)) as session:
        signing_keys.ensure(session, settings.master_keys, settings.keys_dir)
    with transaction(sessions_of(engine), write=False) as session:
        keys.read(session)
    log = AuditLog(sessions_of(engine), keys, settings, "g1")
    for number in (1, 2, 4):
        log.add(act(number))
    log.turn(last=True)
    engine.dispose()
    return tmp_path / "sluice.db"


def sluice(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments])


def tamper(database: Path, statement: str) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(statement)
    connection.close()


@pytest.mark.parametrize("command", ["list", "verify", "export"])
def test_every_command_has_help_with_an_example(command: str):
    assert "Example" in sluice(command, "--help").stdout


@pytest.mark.usefixtures("database")
def test_a_log_that_is_as_it_was_written_verifies():
    ended = sluice("verify")

    assert ended.exit_code == 0, ended.output
    assert "3 entries, from 1 to 3" in ended.output
    assert "nothing was changed" in ended.output
    assert "compare" not in ended.output


def test_what_was_edited_is_found_and_its_place_is_said(database: Path):
    tamper(database, "UPDATE audit_entries SET name = 'nobody' WHERE number = 2")

    ended = sluice("verify")

    assert ended.exit_code == 1
    assert "entry 2 is not what was sealed there" in ended.output


def test_what_was_cut_off_is_found_with_a_head_that_was_kept(database: Path, tmp_path: Path):
    kept = tmp_path / "kept.json"
    kept.write_text(sluice("export").stdout.splitlines()[-1])
    tamper(database, "DELETE FROM audit_entries WHERE number = 3")
    tamper(database, "DELETE FROM audit_heads")
    tamper(database, "UPDATE audit_chain SET number = 2, hash = (SELECT hash FROM audit_entries WHERE number = 2)")
    assert sluice("verify").exit_code == 0

    ended = sluice("verify", "--head", str(kept))

    assert ended.exit_code == 1
    assert "the known head was signed over entry 3" in ended.output


@pytest.mark.usefixtures("database")
def test_an_export_verifies_by_itself_until_it_is_changed(tmp_path: Path):
    file = tmp_path / "log.jsonl"
    assert sluice("export", "--out", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["start", "entry", "entry", "entry", "head"]

    # without a known key it says what is missing, with one it is sure
    assert "compare it" in sluice("verify", str(file)).output
    kid = read_head(lines[-1]).kid
    known = sluice("verify", str(file), "--key", kid)
    assert (known.exit_code, "compare it" in known.output) == (0, False)

    file.write_text("\n".join(lines[:2] + lines[3:]))
    ended = sluice("verify", str(file), "--key", kid)
    assert ended.exit_code == 1
    assert "after entry 1 stands entry 3" in ended.output


@pytest.mark.usefixtures("database")
def test_an_export_of_no_days_is_empty_and_verifies(tmp_path: Path):
    file = tmp_path / "log.jsonl"
    assert sluice("export", "--since", "2100-01-01", "--out", str(file)).exit_code == 0

    assert "0 entries" in sluice("verify", str(file)).output


@pytest.mark.usefixtures("database")
@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "/nowhere"],
        ["verify", "--head", "/nowhere"],
        ["verify", "--head", __file__],
        ["export", "--format", "x"],
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(arguments: list[str]):
    ended = sluice(*arguments)

    assert ended.exit_code == 1
    assert type(ended.exception).__name__ == "CommandFailed"


def test_commands_that_change_the_database_are_in_the_log(database: Path):
    made = CliRunner().invoke(app, ["admin", "create", "root", "--json"])
    assert made.exit_code == 0, made.output
    assert CliRunner().invoke(app, ["keys", "list"]).exit_code == 0

    with sqlite3.connect(database) as connection:
        found = connection.execute("SELECT act, identity, detail FROM audit_entries WHERE number IS NULL").fetchall()
    connection.close()
    assert [(act, identity) for act, identity, _ in found] == [("create_admin", "local")]
    assert json.loads(found[0][2]) == {"name": "root"}
    assert json.loads(made.stdout)["client_secret"] not in str(found)
