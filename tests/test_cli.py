"""The command `sluice` as somebody types it, against a running system."""

from __future__ import annotations

import importlib.metadata
import secrets
from collections.abc import Iterator
from pathlib import Path

import httpx
import typer
from typer.core import TyperCommand, TyperGroup

from sluice.cli import app
from tests.command_line import sluice, started, succeed
from tests.system import System, plain_environment

COMMANDS = (
    "up", "gateway", "worker", "prepare-worker", "background-worker", "migrate", "admin create", "people add",
    "people password", "people disable", "people enable", "people list", "people role", "people password-token",
    "people remove-second-factor", "admin setup-token", "models push", "models list", "models show",
    "clients create", "clients list", "clients rotate", "clients disable", "clients enable", "clients grant",
    "models variants show", "models variants set", "models variants clear", "models prepare", "models compare",
    "models settings show", "models settings set", "models describe", "models card", "models evaluate",
    "models import", "models samples list", "models samples put", "models samples delete", "models traffic show",
    "models traffic set", "models traffic clear", "models shadow show", "models shadow set", "models shadow report",
    "models shadow clear", "models canary show", "models canary begin", "models canary promote",
    "models canary rollback", "models canary forget", "models jobs-policy show", "models jobs-policy set",
    "models jobs-policy clear",
    "clients limits show", "clients limits set", "clients limits clear",
    "clients show", "clients delete", "people delete", "models label", "models unlabel", "models retire",
    "models restore", "models rollback", "models policy show", "models policy set", "models gates show",
    "models gates set", "models gates clear", "models delete", "workers list", "events", "batch run", "batch attach",
    "jobs submit", "jobs list", "jobs show", "jobs wait", "jobs watch", "jobs result", "jobs cancel", "jobs delete",
    "jobs replay",
    "dead-letters list", "dead-letters show", "dead-letters replay", "dead-letters purge",
    "receipt verify", "bundle get", "bundle verify",
    "clients delete-jobs", "clients access", "clients keys", "clients identities", "tokens revoke",
    "tokens inspect", "predict",
    "keys list", "keys rotate", "keys withdraw", "keys reseal", "keys new-master", "storage seal", "storage copy",
    "upload-keys new", "webhooks add", "webhooks list", "webhooks disable", "webhooks enable", "webhooks remove",
    "webhooks test",
    "webhooks secret", "webhooks rotate", "webhooks log", "webhooks replay", "webhooks verify",
    "upload-keys add", "upload-keys list", "upload-keys remove",
    "audit list", "audit export", "audit verify", "audit restart-signing",
    "login", "logout", "whoami", "explain", "bench", "completion",
    "models uploads list", "models uploads delete",
)  # fmt: skip


# Commands that print a table or an object, by their last word.
PRINTING = frozenset({
    "list", "show", "report", "log", "keys", "identities", "access", "inspect", "whoami", "predict", "explain", "bench",
    "push", "import", "prepare", "compare", "evaluate", "describe", "label", "rollback", "wait", "events", "watch",
})  # fmt: skip


def commands(group: TyperGroup, words: tuple[str, ...] = ()) -> Iterator[tuple[str, TyperCommand]]:
    """Every command, by its words."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*words, name))
        elif isinstance(command, TyperCommand):
            yield " ".join((*words, name)), command


def everything() -> dict[str, TyperCommand]:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    return dict(commands(group))


def test_every_command_has_help_with_an_example() -> None:
    assert [words for words, command in everything().items() if "Example" not in (command.help or "")] == []


def test_the_list_of_commands_is_all_of_them() -> None:
    assert sorted(everything()) == sorted(COMMANDS)


def test_the_version_needs_no_command() -> None:
    assert succeed("--version", environment={}).strip() == importlib.metadata.version("sluice-gateway")


def test_whatever_prints_a_table_prints_json_as_well() -> None:
    printing = {words: command for words, command in everything().items() if words.split()[-1] in PRINTING}

    assert len(printing) > 40
    assert [words for words, command in printing.items() if "--json" not in options_of(command)] == []


def options_of(command: TyperCommand) -> set[str]:
    return {name for option in command.params for name in option.opts}


def test_who_asks_for_a_model_without_a_grant_is_told_both_reasons(system: System) -> None:
    ended = sluice("predict", "nosuch", "-", environment=system.environment(), text='{"instances": [1]}')

    assert ended.returncode == 1
    assert "Servable not found" in ended.stderr
    assert "sluice clients grant CLIENT --model nosuch" in ended.stderr


def test_a_person_is_added_with_a_password_from_standard_input(system: System) -> None:
    name = f"t-{secrets.token_hex(4)}"
    add = ("people", "add", name, "--data", str(system.data))

    assert sluice(*add, text="correct horse battery\n").returncode == 0
    again = sluice(*add, text="correct horse battery\n")

    assert again.returncode == 1
    assert f"there is somebody named {name} already" in again.stderr


def test_a_persons_new_password_and_a_persons_end_count_at_once(system: System) -> None:
    name, data = f"t-{secrets.token_hex(4)}", ("--data", str(system.data))

    def status(password: str) -> int:
        return httpx.get(f"{system.base_url}/metrics", auth=(name, password)).status_code

    def people(verb: str, text: str = "") -> int:
        return sluice("people", verb, name, *data, text=text).returncode

    assert people("add", "correct horse battery\n") == 0
    assert status("correct horse battery") == 200
    assert people("password", "another horse battery\n") == 0
    assert (status("correct horse battery"), status("another horse battery")) == (401, 200)
    assert people("disable") == 0
    assert status("another horse battery") == 401
    assert people("enable") == 0
    assert status("another horse battery") == 200


def test_an_address_that_is_given_counts_instead_of_the_files(tmp_path: Path) -> None:
    file = tmp_path / "client.json"
    file.write_text('{"base_url": "http://127.0.0.1:1", "client_id": "a", "client_secret": "b"}')

    ended = sluice("models", "list", "--credentials", str(file), "--url", "http://127.0.0.1:2")

    assert "127.0.0.1:2 cannot be reached" in ended.stderr
    assert ended.returncode == 75


def test_whoever_does_not_say_who_asks_is_told_how(tmp_path: Path) -> None:
    ended = started("models", "list", folder=tmp_path)

    assert ended.returncode == 1
    assert "--credentials" in ended.stderr
    assert "SLUICE_CLIENT_SECRET" in ended.stderr


def test_missing_settings_are_named_without_values(tmp_path: Path) -> None:
    environment = {**plain_environment(), "SLUICE_CLIENT_SECRET_KEY": "short-secret"}

    ended = started("gateway", environment=environment, folder=tmp_path)

    assert ended.returncode == 1
    assert "SLUICE_CLIENT_SECRET_KEY" in ended.stderr
    assert "short-secret" not in ended.stderr


def test_an_administrator_whose_secret_cannot_be_written_down_is_not_made(tmp_path: Path) -> None:
    environment = {
        **plain_environment(),
        "SLUICE_CLIENT_SECRET_KEY": "k" * 32,
        "SLUICE_MASTER_KEY": "m" * 43,
        "SLUICE_DATABASE_URL": f"sqlite:///{tmp_path}/sluice.db",
    }
    succeed("migrate", environment=environment)

    ended = sluice("admin", "create", "root", "--out", f"{tmp_path}/missing/admin.json", environment=environment)

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert "sls_" not in ended.stderr
    succeed("admin", "create", "root", "--out", f"{tmp_path}/admin.json", environment=environment)


def test_an_error_of_the_gateway_is_one_line_and_exit_code_one(system: System) -> None:
    ended = sluice("models", "show", "nothing", environment=system.environment())

    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr
