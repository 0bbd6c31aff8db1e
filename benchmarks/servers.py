"""What is measured: the whole system as `sluice up --demo` starts it, and the floor beside it on the same data."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from sluice.client import Json, Sluice, SluiceFailed
from sluice.data_folder import DataFolder
from sluice.trained import EXAMPLE, Trained

HOST = "127.0.0.1"
PATH = "/v1/models/mnist:predict"
# The first start trains the demo's models.
START_SECONDS = 300.0
STOP_SECONDS = 30.0


class ServerFailed(Exception):
    """A server did not start, or answered wrongly; the message shows what it said."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Two servers that answer the same request, and the data that both read."""

    sluice_port: int
    floor_port: int
    folder: DataFolder

    def client(self) -> Sluice:
        return Sluice.from_file(self.folder.demo_json)

    def trained(self) -> Trained:
        found = Trained.read(self.folder.demo)
        if found is None:
            raise ServerFailed(f"{self.folder.demo} holds no trained models")
        return found

    def token(self) -> str:
        """A new access token of the demo's client, good for both."""
        known = json.loads(self.folder.demo_json.read_text())
        answer = httpx.post(
            f"http://{HOST}:{self.sluice_port}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(known["client_id"], known["client_secret"]),
            trust_env=False,
        )
        return str(answer.raise_for_status().json()["access_token"])


@contextlib.contextmanager
def serving(data: Path, workers: int) -> Iterator[Servers]:
    """Start both on free ports and stop them again. Raises ServerFailed."""
    folder = DataFolder.at(data)
    folder.make()
    sluice_port, floor_port = free_ports(2)
    up = [sys.executable, "-m", "sluice", "up", "--demo", "--data", str(data), "--port", str(sluice_port)]
    with running([*up, "--workers", str(workers)], dict(os.environ), folder.root / "bench-up.log") as system:
        wait_for(system, "Paste these two commands")
        settings = {"SLUICE_HOST": HOST, "SLUICE_PORT": str(floor_port)}
        environment = folder.environment_of_gateways(os.environ) | settings
        floor = [sys.executable, "-m", "benchmarks.floor"]
        with running(floor, environment, folder.root / "bench-floor.log") as server:
            wait_for_port(server, floor_port)
            yield Servers(sluice_port, floor_port, folder)


@dataclass(frozen=True, slots=True)
class Running:
    """A process of ours and the file that it writes to."""

    process: subprocess.Popen[bytes]
    output: Path

    def failed(self, text: str) -> ServerFailed:
        return ServerFailed(f"{text}; the end of {self.output}:\n{self.output.read_text()[-2000:]}")


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str], output: Path) -> Iterator[Running]:
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment
        )
    try:
        yield Running(process, output)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        finally:
            process.kill()
            process.wait()


def wait_for(server: Running, text: str) -> None:
    """Until the process has said this."""
    until = time.monotonic() + START_SECONDS
    while text not in (said := server.output.read_text()):
        require_patience(server, until)
        if "could not be set up" in said:
            raise server.failed("the demo is missing")
        time.sleep(0.1)


def wait_for_port(server: Running, port: int) -> None:
    until = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((HOST, port)):
            return
        require_patience(server, until)
        time.sleep(0.1)


def require_patience(server: Running, until: float) -> None:
    if server.process.poll() is not None:
        raise server.failed(f"a server ended with {server.process.returncode}")
    if time.monotonic() > until:
        raise server.failed(f"a server was not ready after {START_SECONDS:g} seconds")


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback address that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((HOST, 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


def verify(servers: Servers, digits: list[Json]) -> None:
    """Check that answers are right, before anybody times them. Raises ServerFailed."""
    trained = servers.trained()
    try:
        with servers.client() as client:
            verify_line(client, trained)
            verify_digits(client, trained, servers, digits)
    except SluiceFailed as error:
        raise ServerFailed(f"a prediction failed: {error}") from error


def verify_line(client: Sluice, trained: Trained) -> None:
    points = [[1.0, 2.0], [-0.5, 3.25], [0.0, 0.0]]
    for point, answer in zip(points, client.predict("linear", points), strict=True):
        expected = sum(x * w for x, w in zip(point, trained.weights, strict=True)) + trained.bias
        if abs(answer[0] - expected) > 1e-4:
            raise ServerFailed(f"linear answers {answer} to {point}, which is {expected}")


def verify_digits(client: Sluice, trained: Trained, servers: Servers, digits: list[Json]) -> None:
    together = client.predict("mnist", digits)
    for digit, answer in zip(digits, together, strict=True):
        alone = client.predict("mnist", [digit])[0]
        if len(alone) != 10 or abs(sum(alone) - 1) > 1e-4:
            raise ServerFailed(f"mnist answers {alone}, which are no ten probabilities")
        if max(abs(left - right) for left, right in zip(alone, answer, strict=True)) > 1e-5:
            raise ServerFailed("mnist answers a digit alone otherwise than among others")
    example = json.loads((servers.folder.root / EXAMPLE).read_text())
    shown = client.predict("mnist", example["instances"])[0]
    if max(range(10), key=shown.__getitem__) != trained.digit:
        raise ServerFailed(f"mnist takes a {trained.digit} for another digit: {shown}")
