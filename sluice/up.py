"""`sluice up`: the whole system on one machine, as one foreground command that leaves nothing behind.

The embedded system is the same code as any other; only its settings come from a data folder instead of an operator.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.markup import escape

from sluice import embedded_redis, process
from sluice.child import Child, Program
from sluice.data_folder import DataFolder
from sluice.demo import Demo
from sluice.failures import CommandFailed
from sluice.listening_ports import HOST, next_free_ports, port_is_free
from sluice.orphans import Orphans
from sluice.supervisor import Supervisor

LOOK_SECONDS = 0.1
START_SECONDS = 90.0
START_DEATHS = 3
GATEWAY_STOP_SECONDS = 10.0
WORKER_STOP_SECONDS = 15.0


# Settings whose names begin so are for gateways that others reach; settings are read whatever their letters' case.
OF_TLS = "SLUICE_TLS_"


class StartFailed(CommandFailed):
    """The system did not come up; the message says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line may choose. Gateways listen on `port`, `port + 1` and so on.

    For gRPC they take `grpc_port` and those after it, or, where that is 0, the ports behind the others that are free.
    """

    data: Path
    port: int = 8080
    grpc_port: int = 0
    demo: bool = False
    small: bool = False
    workers: int = 2
    gateways: int = 1

    @property
    def ports(self) -> range:
        return range(self.port, self.port + self.gateways)

    @property
    def grpc_ports(self) -> Sequence[int]:
        """One for each gateway, as of now."""
        if self.grpc_port:
            return range(self.grpc_port, self.grpc_port + self.gateways)
        return next_free_ports(self.ports)

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"


class Interrupts:
    """Remembers that Ctrl-C or SIGTERM came; a second one cuts the orderly end short."""

    def __init__(self) -> None:
        self.came = False

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Within this context the signals are taken note of instead of ending the process."""
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.signal(number, self._note) for number in signals]
        try:
            yield
        finally:
            for number, action in zip(signals, before, strict=True):
                signal.signal(number, action)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a signal handler
        if self.came:
            signal.signal(number, signal.SIG_IGN)
            raise KeyboardInterrupt
        self.came = True


def up(options: Options, console: Console) -> None:
    """Run the system until Ctrl-C or SIGTERM. Raises StartFailed, DataFolderInUse, DataFolderInvalid, RedisMissing."""
    _require_plain_http(os.environ)
    folder = DataFolder.at(options.data)
    folder.make()
    interrupts = Interrupts()
    grpc_ports = options.grpc_ports
    with folder.lock(options.address, f"{HOST}:{grpc_ports[0]}"), interrupts.heard():
        _require_ports(options, grpc_ports)
        folder.empty_scratch()

        def warn(text: str) -> None:
            console.print(f"[yellow]{escape(text)}[/]", highlight=False)

        supervisor = Supervisor(folder.logs, warn, Orphans())
        system = System(options, grpc_ports, folder, supervisor, interrupts)
        try:
            system.run(console)
        finally:
            # Also where the terminal is gone and cannot be written to.
            with contextlib.suppress(KeyboardInterrupt):
                try:
                    console.print("Stopping.")
                finally:
                    supervisor.stop()


class System:
    """The programs of the embedded system and the order in which they start."""

    def __init__(
        self,
        options: Options,
        grpc_ports: Sequence[int],
        folder: DataFolder,
        supervisor: Supervisor,
        interrupts: Interrupts,
    ) -> None:
        self._options = options
        self._grpc_ports = grpc_ports
        self._folder = folder
        self._supervisor = supervisor
        self._interrupts = interrupts
        inherited = {**os.environ, "PYTHONUNBUFFERED": "1", "PROMETHEUS_MULTIPROC_DIR": str(folder.metrics)}
        self._worker_environment = folder.environment_of_workers(inherited)
        self._gateway_environment = folder.environment_of_gateways(inherited)

    def run(self, console: Console) -> None:
        """Start everything, say so, and look after it until a signal comes. Raises StartFailed, RedisMissing."""
        started_at = time.monotonic()
        console.print(f"Sluice starts. Its data is in {escape(str(self._folder.root))}", highlight=False)
        demo = self._demo(console) if self._options.demo else None
        # Training takes longest: it begins before anything else does.
        training = self._errand(demo.training()) if demo is not None else None
        with console.status("Starting Redis and preparing the database"):
            self._start_foundation()
        with console.status("Starting the gateway and the workers"):
            self._start_programs()
        if self._interrupts.came:
            return
        self._announce(console, time.monotonic() - started_at)
        if demo is not None:
            demo.start(training, self._errand(demo.administrator(self._gateway_environment)))
        try:
            self._wait(lambda: False, "", seconds=None)
        finally:
            if demo is not None:
                demo.cancel()

    def _demo(self, console: Console) -> Demo:
        return Demo(self._folder, self._options.address, console, small=self._options.small)

    def _announce(self, console: Console, seconds: float) -> None:
        lines = [f"Sluice is ready at [bold]{self._options.address}[/] after {seconds:.1f} s. Ctrl-C stops it."]
        lines += [f"  gateway        http://{HOST}:{port}" for port in self._options.ports[1:]]
        lines += [
            f"  interface      {self._options.address}/docs",
            f"  gRPC           {', '.join(f'{HOST}:{port}' for port in self._grpc_ports)}",
            f"  logs           {escape(str(self._folder.logs))}",
        ]
        if not self._options.demo:
            data = escape(shlex.quote(str(self._folder.root)))
            lines.append(f"  administrator  sluice admin create NAME --data {data}")
            lines.append(f"  people         sluice admin setup-token --data {data}")
        console.print("\n".join(lines), highlight=False)

    def _errand(self, program: Program | None) -> Child | None:
        return None if program is None else self._supervisor.errand(program)

    def _start_foundation(self) -> None:
        """Redis and the database's tables, at the same time."""
        redis = embedded_redis.redis_program(self._folder, {"PATH": os.defpath})
        self._supervisor.start([redis])
        migration = self._supervisor.errand(self._python("migrate", self._worker_environment))
        self._wait(lambda: migration.ending() is not None, "the database's migrations take too long")
        self._require_success(migration)
        self._wait(lambda: embedded_redis.answers(self._folder), "Redis does not answer")

    def _start_programs(self) -> None:
        if not self._interrupts.came:
            self._supervisor.start(self._workers())
            self._supervisor.start(self._gateways())
            self._wait(lambda: all(_ready(port) for port in self._options.ports), "gateway and workers are not ready")

    def _workers(self) -> list[Program]:
        processes = {"SLUICE_WORKER_PROCESSES": str(self._options.workers), "SLUICE_WORKER_NAME": "worker"}
        return [
            self._python("worker", self._worker_environment | processes, stop_seconds=WORKER_STOP_SECONDS),
            self._python(
                "prepare-worker",
                self._worker_environment | {"SLUICE_WORKER_NAME": "prepare-worker"},
                stop_seconds=WORKER_STOP_SECONDS,
            ),
            self._python(
                "background-worker",
                self._worker_environment | {"SLUICE_WORKER_NAME": "background-worker"},
                stop_seconds=WORKER_STOP_SECONDS,
            ),
        ]

    def _gateways(self) -> list[Program]:
        return [
            self._python(
                "gateway",
                self._gateway_environment
                | {"SLUICE_HOST": HOST, "SLUICE_PORT": str(port), "SLUICE_GRPC_PORT": str(grpc_port)},
                name="gateway" if self._options.gateways == 1 else f"gateway-{port}",
                stop_seconds=GATEWAY_STOP_SECONDS,
            )
            for port, grpc_port in zip(self._options.ports, self._grpc_ports, strict=True)
        ]

    def _python(
        self, verb: str, environment: dict[str, str], *, name: str | None = None, stop_seconds: float = 5.0
    ) -> Program:
        # -P: the data folder, in which it runs, is no place to import from.
        command = process.command_of(verb) if verb in process.KINDS else [sys.executable, "-P", "-m", "sluice", verb]
        return Program(name or verb, command, environment, self._folder.root, stop_seconds)

    def _wait(self, condition: Callable[[], bool], otherwise: str, *, seconds: float | None = START_SECONDS) -> None:
        """Look after everybody until the condition holds or a signal came; with a time limit, raise StartFailed."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self._interrupts.came and not condition():
            self._supervisor.watch()
            if until is not None:
                dying = [member.program.name for member in self._supervisor.members if member.deaths >= START_DEATHS]
                if dying:
                    raise StartFailed(f"{dying[0]} ended {START_DEATHS} times while it was started")
                if time.monotonic() > until:
                    raise StartFailed(f"{otherwise} after {seconds:.0f} s; see {self._folder.logs}")
            time.sleep(LOOK_SECONDS)

    def _require_success(self, errand: Child) -> None:
        ending = errand.ending()
        if ending is not None and ending.code != 0 and not self._interrupts.came:
            lines = "\n".join(f"    {line[:300]}" for line in errand.logbook.last_lines(5))
            raise StartFailed(f"{errand.program.name} {ending}. The end of {errand.logbook.path}:\n{lines}")


def _require_plain_http(environment: Mapping[str, str]) -> None:
    # It listens on the loopback address, for which no certificate is made.
    if named := sorted(name for name, value in environment.items() if value and name.upper().startswith(OF_TLS)):
        raise StartFailed(
            f"`sluice up` speaks plain HTTP on the loopback address only; unset {', '.join(named)}, or run single"
            " processes with TLS (docs/operations.md)"
        )


def _require_ports(options: Options, grpc_ports: Sequence[int]) -> None:
    for port in options.ports:
        if not port_is_free(port):
            other = port + 1 if port < 65535 else port - 1
            raise StartFailed(
                f"port {port} is taken by another program; choose another one: "
                f"sluice up --port {other}, or make up PORT={other}"
            )
    for port in grpc_ports:
        if port in options.ports or not port_is_free(port):
            raise StartFailed(f"port {port} is taken; choose another one for gRPC: sluice up --grpc-port PORT")


def _ready(port: int) -> bool:
    """Whether the gateway can reach the database and Redis, and somebody is there to answer predictions."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        return answer.status == 200 and json.loads(answer.read())["slots"] > 0
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
