"""`sluice audit …` as somebody types it."""

from __future__ import annotations

import json
import sqlite3
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from auth import signing_keys
from auth.audit_heads import read_heads
from gateway.audit_log import AuditLog
from gateway.settings import GatewaySettings
from model_store.database import connect, sessions_of, transaction
from sluice.cli import app
from tests.audit_kit import act, sqlite_url
from tests.databases import make_tables

SECRETS = {"client_secret_key": "k" * 32, "master_key": "m" * 43}


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with three entries, sealed and signed by a gateway that has ended since."""
    for name, value in {**SECRETS, "database_url": sqlite_url(tmp_path)}.items():
        monkeypatch.setenv(f"SLUICE_{name.upper()}", value)
    settings = GatewaySettings(keys_dir=tmp_path / "keys")
    make_tables(settings)
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


@pytest.mark.parametrize("command", ["list", "verify", "export", "restart-signing"])
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
    tamper(database, "DELETE FROM audit_heads WHERE number = 3")
    tamper(database, "UPDATE audit_chain SET number = 2, hash = (SELECT hash FROM audit_entries WHERE number = 2)")
    assert sluice("verify").exit_code == 0

    ended = sluice("verify", "--head", str(kept))

    assert ended.exit_code == 1
    assert "the known head was signed over entry 3" in ended.output


@pytest.mark.usefixtures("database")
def test_an_export_verifies_by_itself_until_it_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "log.jsonl"
    assert sluice("export", "--out", str(file)).exit_code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    lines = file.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["start", "entry", "entry", "entry", "head"]

    # where the installation is, its keys are known; elsewhere one has to be named
    assert sluice("verify", str(file)).exit_code == 0
    monkeypatch.delenv("SLUICE_DATABASE_URL")
    unknown = sluice("verify", str(file))
    assert (unknown.exit_code, "a key that nobody vouched for" in unknown.output.splitlines()[-1]) == (2, True)
    kid = read_heads(lines[-1])[0].kid
    assert sluice("verify", str(file), "--key", kid).exit_code == 0
    assert sluice("verify", str(file), "--head", str(file)).exit_code == 0, "an earlier export is good for it"

    file.write_text("\n".join(lines[:2] + lines[3:]))
    ended = sluice("verify", str(file), "--key", kid)
    assert ended.exit_code == 1
    assert "after entry 1 stands entry 3" in ended.output


def test_every_head_of_a_log_is_compared(database: Path, tmp_path: Path):
    # given a gateway's log with the heads over entries 2 and 3
    kept = tmp_path / "gateway.log"
    with sqlite3.connect(database) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT * FROM audit_heads WHERE number > 1").fetchall()
    connection.close()
    kept.write_text("\n".join(json.dumps({"message": f"audit head {json.dumps(dict(row))}"}) for row in rows))
    assert sluice("verify", "--head", str(kept)).exit_code == 0

    # when entry 2 is another one, and nothing else but its own head says so
    tamper(database, "UPDATE audit_entries SET hash = 'aa' WHERE number = 2")

    assert "entry 2 is not the one over which the known head" in sluice("verify", "--head", str(kept)).output


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("DELETE FROM audit_heads", "no head is over any of the entries"),
        ("UPDATE audit_entries SET address = cast(address as blob) WHERE number = 2", "entry 2 is not what was sealed"),
        ("UPDATE audit_entries SET number = x'ff' WHERE number = 2", "after entry 1 stands entry 3"),
        ("UPDATE audit_heads SET hash = x'ff' WHERE number = 3", "the head over entry 3 is not what was signed"),
        ("UPDATE audit_heads SET key = x'ff' WHERE number = 3", "the head over entry 3 is not what was signed"),
        ("UPDATE audit_heads SET number = 'x' WHERE number = 3", "the head over entry -1 is not what was signed"),
        ("DELETE FROM audit_chain", "the row of audit_chain"),
        ("UPDATE audit_chain SET number = x'ff'", "the row of audit_chain"),
        ("UPDATE audit_chain SET before_hash = 'zz', before_number = 2", "said to begin after entry 2"),
        ("DROP TABLE audit_heads", "cannot be read: no such table: audit_heads"),
    ],
)
def test_what_was_done_to_the_tables_is_said_in_a_sentence(database: Path, statement: str, found: str):
    tamper(database, statement)

    ended = sluice("verify")

    assert ended.exit_code == 1
    assert type(ended.exception).__name__ == "CommandFailed"
    assert found in f"{ended.output} {ended.exception}"


def test_an_empty_log_is_not_said_to_be_unchanged(database: Path):
    for statement in ("DELETE FROM audit_entries", "DELETE FROM audit_heads"):
        tamper(database, statement)
    tamper(database, "UPDATE audit_chain SET number = 0, hash = before_hash")

    ended = sluice("verify")

    assert (ended.exit_code, ended.output.splitlines()[-1][:16]) == (2, "the log is empty")


def test_entries_that_are_not_signed_yet_are_said(database: Path):
    tamper(database, "DELETE FROM audit_heads WHERE number > 1")

    assert "entries 2 to 3 are chained but not signed yet" in sluice("verify").output


def test_a_log_that_was_changed_is_not_exported_until_an_operator_begins_anew(database: Path, tmp_path: Path):
    tamper(database, "DELETE FROM audit_heads")
    refused = sluice("export", "--out", str(tmp_path / "log.jsonl"))
    assert (refused.exit_code, "no head is over any" in str(refused.exception)) == (1, True)

    assert "signed up to entry 3" in sluice("restart-signing", "--yes").output

    assert sluice("export", "--out", str(tmp_path / "log.jsonl")).exit_code == 0
    assert sluice("verify").exit_code == 0


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
    assert CliRunner().invoke(app, ["keys", "rotate", "--compromised"]).exit_code == 0

    with sqlite3.connect(database) as connection:
        found = connection.execute("SELECT act, identity, detail FROM audit_entries WHERE number IS NULL").fetchall()
    connection.close()
    assert [(act, identity) for act, identity, _ in found] == [
        ("create_admin", "local"),
        ("rotate_key", "local"),
    ]
    assert [json.loads(detail) for _, _, detail in found] == [{"name": "root"}, {"compromised": "True"}]
    assert json.loads(made.stdout)["client_secret"] not in str(found)
