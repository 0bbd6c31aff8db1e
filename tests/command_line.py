"""The command `sluice`, as somebody types it: with the environment and the folder of a process of its own."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from sluice.cli import app, main
from sluice.preparation import follow
from tests.system import System, plain_environment

# Whoever runs the tests may have logins of their own.
NO_LOGINS = "/nonexistent"


def sluice(
    *arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """What the command did; here, since to start Python and to import takes longer than what most of them do."""
    alone: dict[str, str | None] = {**dict.fromkeys(os.environ), **_alone(environment)}
    code: object = 0
    before = dict(os.environ)
    with CliRunner().isolation(text, alone) as (output, errors, _), contextlib.chdir(folder or "."):
        typed, sys.argv = sys.argv, ["sluice", *arguments]
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        finally:
            sys.argv = typed
        sys.stdout.flush()
        sys.stderr.flush()
        said = [stream.getvalue().decode() for stream in (output, errors)]
    # Commands of the server's machine add the settings of its folder.
    os.environ.clear()
    os.environ.update(before)
    return subprocess.CompletedProcess(arguments, code if isinstance(code, int) else 1, *said)


def started(
    *arguments: str, environment: dict[str, str] | None = None, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """What the command did in a process of its own: for what becomes another program, and for pipes."""
    return subprocess.run(
        [sys.executable, "-m", "sluice", *arguments],
        env=_alone(environment),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def succeed(*arguments: str, environment: dict[str, str], text: str = "") -> str:
    """What a command prints that succeeds."""
    ended = sluice(*arguments, environment=environment, text=text)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


class Shell:
    """The command in this process, as a client that may predict and explain with one model."""

    def __init__(self, base_url: str, model: str, client_id: str, secret: str) -> None:
        self.model = model
        self.who = {"SLUICE_URL": base_url, "SLUICE_CLIENT_ID": client_id, "SLUICE_CLIENT_SECRET": secret}

    def __call__(self, *arguments: str, fails: bool = False, text: str = "") -> Result:
        ended = CliRunner().invoke(app, arguments, env={**self.who, "COLUMNS": "200"}, input=text)
        assert (ended.exit_code != 0) is fails, (ended.output, ended.exception)
        return ended


def _alone(environment: dict[str, str] | None) -> dict[str, str]:
    return {"XDG_CONFIG_HOME": NO_LOGINS, **(environment or plain_environment()), "COLUMNS": "200"}


def shell_for(system: System, file: Path) -> Shell:
    """A new client for a new model."""
    model = f"t-{secrets.token_hex(4)}"
    with system.admin() as admin:
        admin.upload(model, file)
        follow(admin, model, 1, lambda _: None)
        scopes = ["predict", "explain", "jobs", "models:read"]
        found = admin.post("/admin/clients", {"name": model, "scopes": scopes, "grants": [{"model": model}]})
    return Shell(system.base_url, model, found["id"], found["client_secret"])
