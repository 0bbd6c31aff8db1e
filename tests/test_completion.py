"""What a shell completes: commands, options, and names of models as far as the gateway tells them quickly."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sluice.cli import app
from sluice.completing import model_names
from tests.command_line import Shell, shell_for
from tests.onnx_models import line
from tests.processes import wait_for
from tests.system import System, plain_environment


@pytest.fixture(scope="module")
def shell(system: System, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return shell_for(system, line(tmp_path_factory.mktemp("models") / "line.onnx", weights=[1.0], bias=0.0))


@pytest.mark.parametrize(
    ("words", "offered"),
    [("sluice mod", ["models"]), ("sluice models tra", ["traffic"]), ("sluice predict ''", None)],
    ids=["a command", "a command of a group", "a model"],
)
def test_bash_completes_commands_and_models(shell: Shell, words: str, offered: list[str] | None) -> None:
    # given a shell that has read the script, with somebody's words before the cursor
    script = (
        "source <(sluice completion bash); "
        f"COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); "
        '_sluice_completion sluice; echo "${COMPREPLY[@]}"'
    )
    environment = {**plain_environment(), **shell.who, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    # when TAB is pressed
    ended = subprocess.run(["bash", "-c", script], env=environment, stdout=subprocess.PIPE, text=True, check=True)

    # then that is offered which fits
    assert ended.stdout.split() == (offered or [shell.model])


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_shells_are_given_a_script_of_their_own(name: str) -> None:
    ended = CliRunner().invoke(app, ["completion", name])

    assert ended.exit_code == 0
    assert f"complete_{name}" in ended.output


class Hostile(BaseHTTPRequestHandler):
    """A server that gives everybody a token, and calls its models what a shell would run or a terminal obey."""

    def do_GET(self) -> None:
        self._answer({"models": ["mnist", "$(reboot)", "a;b", "\x1b[2J", "-rf", "", 7]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({"access_token": "t", "token_type": "Bearer", "expires_in": 60})

    def _answer(self, document: object) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(document).encode())

    def log_message(self, *_: object) -> None:
        pass


def test_nothing_is_offered_that_is_no_name_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        for name, value in {"URL": address, "CLIENT_ID": "cli_a", "CLIENT_SECRET": "sls_b"}.items():
            monkeypatch.setenv(f"SLUICE_{name}", value)
        # Of the second that a completion has, a busy machine may need all.
        wait_for(lambda: model_names("") != [], 20)

        assert model_names("") in (["mnist"], [])
        server.shutdown()
        thread.join()


def test_a_gateway_that_does_not_answer_costs_a_completion_no_more_than_its_patience(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given something that takes connections, and says nothing
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for name, value in {"URL": address, "CLIENT_ID": "cli_a", "CLIENT_SECRET": "sls_b"}.items():
            monkeypatch.setenv(f"SLUICE_{name}", value)

        # then nothing is offered
        assert model_names("") == []
