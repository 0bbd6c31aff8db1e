"""The whole system as `sluice up` runs it, started once per session for every test that speaks to it over HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sluice.client import Client
from sluice.listening_ports import free_port

START_SECONDS = 90
STOP_SECONDS = 40


@dataclass(frozen=True, slots=True)
class System:
    """A running `sluice up` without demo, with one administrator."""

    base_url: str
    admin_client_id: str
    admin_client_secret: str
    data: Path
    process: subprocess.Popen[bytes]

    def admin(self) -> Client:
        """A client that may do everything; close it."""
        return Client(self.base_url, self.admin_client_id, self.admin_client_secret)

    def environment(self, *, admin: bool = True) -> dict[str, str]:
        """Variables with which the command `sluice` works on this system, as its administrator or as nobody."""
        who = {"SLUICE_CLIENT_ID": self.admin_client_id, "SLUICE_CLIENT_SECRET": self.admin_client_secret}
        return {**plain_environment(), "SLUICE_URL": self.base_url, **(who if admin else {})}


def plain_environment() -> dict[str, str]:
    """This process's environment without any setting of Sluice."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}


def start_up(data: Path, output: Path, *options: str, port: int | None = None) -> tuple[subprocess.Popen[bytes], str]:
    """Starts `sluice up` with its output in a file; returns the process and the address that it will have."""
    port = port or free_port()
    command = [sys.executable, "-m", "sluice", "up", "--data", str(data), "--port", str(port), *options]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=plain_environment()
        )
    return process, f"http://127.0.0.1:{port}"


def wait_for_output(process: subprocess.Popen[bytes], output: Path, text: str, seconds: float = START_SECONDS) -> None:
    """Wait until the process has written the text; fail with all that it wrote where it does not."""
    until = time.monotonic() + seconds
    while text not in (said := output.read_text()):
        assert process.poll() is None, f"sluice up ended with {process.returncode}:\n{said}"
        assert time.monotonic() < until, f"no {text!r} in:\n{said}"
        time.sleep(0.05)


def stop_up(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    """Ends `sluice up` and returns its exit code."""
    process.send_signal(number)
    try:
        return process.wait(STOP_SECONDS)
    finally:
        process.kill()
        process.wait()


def create_admin(data: Path, name: str) -> dict[str, str]:
    """Makes an administrator on the machine that has the database: `base_url`, `client_id`, `client_secret`."""
    command = [sys.executable, "-m", "sluice", "admin", "create", name, "--data", str(data), "--json"]
    made = subprocess.run(command, env=plain_environment(), stdout=subprocess.PIPE, check=True)
    found: dict[str, str] = json.loads(made.stdout)
    return found


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One system for the session; tests use names of their own for models and clients."""
    folder = tmp_path_factory.mktemp("system")
    data, output = folder / "data", folder / "output"
    process, base_url = start_up(data, output)
    try:
        wait_for_output(process, output, "Sluice is ready")
        made = create_admin(data, "tests")
        yield System(base_url, made["client_id"], made["client_secret"], data, process)
    finally:
        stop_up(process)
