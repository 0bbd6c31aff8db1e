"""The command `sluice` as somebody types it, against a running system."""

from __future__ import annotations

import json
import secrets
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.onnx_models import line
from tests.system import System, plain_environment

COMMANDS = (
    "up", "gateway", "worker", "prepare-worker", "migrate", "admin create", "people add", "models push", "models list",
    "models show", "clients create", "clients list", "clients rotate", "clients disable", "clients enable",
    "clients grant", "predict",
)  # fmt: skip


def sluice(
    *arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sluice", *arguments],
        env={**(environment or plain_environment()), "COLUMNS": "200"},
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def succeed(*arguments: str, environment: dict[str, str], text: str = "") -> str:
    ended = sluice(*arguments, environment=environment, text=text)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(command: str) -> None:
    ended = sluice(*command.split(), "--help")

    assert ended.returncode == 0
    assert "Example" in ended.stdout


def test_the_way_from_a_file_to_a_prediction(system: System, tmp_path: Path) -> None:
    # given an administrator with a model file
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    file = line(tmp_path / "line.onnx", weights=[1.0, 10.0], bias=100.0)

    # when it is pushed, it is the first version and serves
    assert f"{name} version 1 is AVAILABLE" in succeed("models", "push", name, str(file), environment=environment)
    assert f"{name} (latest)" in succeed("models", "list", environment=environment)
    shown = succeed("models", "show", name, environment=environment)
    assert "(any, 2)" in shown
    assert "serves" in shown

    # and a client that was created for it, with its credentials in a file, gets a prediction
    credentials = tmp_path / "client.json"
    succeed("clients", "create", name, "--model", name, "--out", str(credentials), environment=environment)
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    asking = {**plain_environment(), "SLUICE_CREDENTIALS": str(credentials)}
    answer = succeed("predict", name, "--json", "-", environment=asking, text='{"instances": [[1, 2]]}')
    assert json.loads(answer) == {"predictions": [[121.0]]}


def test_the_same_file_again_is_the_version_that_it_is(system: System, tmp_path: Path) -> None:
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    file = line(tmp_path / "line.onnx", weights=[1.0], bias=0.0)

    pushed = [
        json.loads(succeed("models", "push", name, str(file), "--no-wait", "--json", environment=environment))
        for _ in range(2)
    ]

    assert [version["version"] for version in pushed] == [1, 1]


def test_a_client_is_granted_rotated_disabled_and_enabled_by_name(system: System) -> None:
    environment, name = system.environment(), f"t-{secrets.token_hex(4)}"
    made = json.loads(succeed("clients", "create", name, "--model", "a", "--json", environment=environment))

    # grants are added to those that it has, or replace them
    more = ("clients", "grant", name, "--model", "b", "--version", "2", "--action", "predict", "--json")
    granted = json.loads(succeed(*more, environment=environment))
    assert [(grant["model"], grant["version"]) for grant in granted] == [("a", None), ("b", 2)]
    granted = json.loads(succeed(*more, "--replace", environment=environment))
    assert [(grant["model"], grant["actions"]) for grant in granted] == [("b", ["predict"])]

    # a new secret is another one
    rotated = json.loads(succeed("clients", "rotate", name, "--json", environment=environment))
    assert rotated["client_id"] == made["client_id"]
    assert rotated["client_secret"] != made["client_secret"]

    # and the list says who is disabled
    for verb, disabled in (("disable", True), ("enable", False)):
        succeed("clients", verb, name, environment=environment)
        clients = json.loads(succeed("clients", "list", "--json", environment=environment))
        assert next(client for client in clients if client["name"] == name)["disabled"] is disabled


def test_a_person_is_added_with_a_password_from_standard_input(system: System) -> None:
    name = f"t-{secrets.token_hex(4)}"
    add = ("people", "add", name, "--data", str(system.data))

    assert sluice(*add, text="correct horse battery\n").returncode == 0
    again = sluice(*add, text="correct horse battery\n")

    assert again.returncode == 1
    assert f"there is somebody named {name} already" in again.stderr


def test_whoever_does_not_say_who_asks_is_told_how(tmp_path: Path) -> None:
    ended = sluice("models", "list", folder=tmp_path)

    assert ended.returncode == 1
    assert "--credentials" in ended.stderr
    assert "SLUICE_CLIENT_SECRET" in ended.stderr


def test_missing_settings_are_named_without_values(tmp_path: Path) -> None:
    environment = {**plain_environment(), "SLUICE_CLIENT_SECRET_KEY": "short-secret"}

    ended = sluice("gateway", environment=environment, folder=tmp_path)

    assert ended.returncode == 1
    assert "SLUICE_CLIENT_SECRET_KEY" in ended.stderr
    assert "short-secret" not in ended.stderr


def test_an_error_of_the_gateway_is_one_line_and_exit_code_one(system: System) -> None:
    ended = sluice("models", "show", "nothing", environment=system.environment())

    assert ended.returncode == 1
    assert ended.stderr.startswith("Error: ")
    assert "Traceback" not in ended.stderr
