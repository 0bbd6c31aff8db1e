"""The parts of one installation as processes: Redis and the rest as `sluice up` runs them, each on its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from pydantic import SecretStr
from sqlalchemy import Engine

from benchmarks.failures import BenchmarkFailed
from benchmarks.machine import ROOT
from benchmarks.processes import children, resident_megabytes
from model_store.database import Sessions, connect, sessions_of
from model_store.settings import StoreSettings
from sluice import embedded_redis
from sluice.child import Child, Program
from sluice.data_folder import DataFolder
from sluice.listening_ports import free_port, port_is_free
from sluice.logbook import Logbook

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 20.0
LOOK_SECONDS = 0.01
APPEND_ONLY = "appendonly yes\nappendfsync everysec\n"


@dataclass(frozen=True, slots=True)
class Options:
    """What an experiment may want otherwise. `settings` are of gateways and workers, by their short names."""

    append_only: bool = False
    database_url: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)


class System:
    """Processes on one data folder; close it, and none of them is left. Nothing runs yet but Redis."""

    def __init__(self, folder: DataFolder, options: Options) -> None:
        """Start Redis; raises BenchmarkFailed."""
        self.folder = folder
        self.gateways: list[tuple[Child, int]] = []
        self.worker: Child | None = None
        self._background: Child | None = None
        self._options = options
        self._running: list[Child] = []
        self._engine: Engine | None = None
        folder.make()
        folder.empty_scratch()
        try:
            self.redis = self._start_redis()
        except BaseException:  # not even Ctrl-C may leave a process behind
            self.close()
            raise

    @property
    def port(self) -> int:
        """Of the first gateway."""
        return self.gateways[0][1]

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def sessions(self) -> Sessions:
        """Sessions on its database."""
        if self._engine is None:
            self._engine = connect(StoreSettings(database_url=SecretStr(self.database_url)))
        return sessions_of(self._engine)

    @property
    def database_url(self) -> str:
        return self._options.database_url or self._environment(gateway=False)["SLUICE_DATABASE_URL"]

    def start_gateway(self) -> float:
        """Start one more gateway; returns the seconds until it was ready. Raises BenchmarkFailed."""
        port = free_port()
        environment = self._environment(gateway=True) | {"SLUICE_HOST": HOST, "SLUICE_PORT": str(port)}
        started = time.monotonic()
        child = self._start("gateway", environment, name=f"gateway-{len(self.gateways)}")
        wait_for(lambda: ready(port) is not None, "the gateway is not ready", child)
        self.gateways.append((child, port))
        return time.monotonic() - started

    def start_both(self) -> None:
        """Start a gateway and the serving worker at the same time; raises BenchmarkFailed."""
        worker = self._launch_worker()
        self.start_gateway()
        self._wait_for_slots(worker)

    def start_worker(self) -> None:
        """Start the serving worker and wait until the gateways know its slot. Raises BenchmarkFailed."""
        self._wait_for_slots(self._launch_worker())

    def stop_worker(self) -> None:
        """Stop the serving worker and wait until the gateways know that it is gone."""
        if self.worker is not None:
            self._stop(self.worker)
            self.worker = None
            wait_for(lambda: not any(self._slots(port) for _, port in self.gateways), "a slot is left", self.redis)

    def stop_gateway(self) -> None:
        """Stop the gateway that was started last."""
        self._stop(self.gateways.pop()[0])

    def start_preparing(self) -> None:
        """Start the worker that checks and converts uploads."""
        self._start("prepare-worker", self._environment(gateway=False) | {"SLUICE_WORKER_NAME": "prepare-worker"})

    def start_background(self) -> None:
        """Start the worker that reads files."""
        self._background = self._start(
            "background-worker", self._environment(gateway=False) | {"SLUICE_WORKER_NAME": "background-worker"}
        )

    def reading(self) -> int:
        """Process id of the worker that reads files."""
        if self._background is None:
            raise BenchmarkFailed("the background worker does not run")
        return self._background.pid

    def start_floor(self) -> int:
        """Start the floor on the same data; returns its port. Raises BenchmarkFailed."""
        port = free_port()
        settings = {"SLUICE_HOST": HOST, "SLUICE_PORT": str(port)}
        environment = self._environment(gateway=True) | settings
        child = self._launch(Program("floor", [sys.executable, "-m", "benchmarks.floor"], environment, ROOT))
        wait_for(lambda: not port_is_free(port), "the floor does not listen", child)
        return port

    def run(self, *arguments: str) -> None:
        """Run the command `sluice` with the settings of gateways, to its end; raises BenchmarkFailed."""
        child = self._start(arguments[0], self._environment(gateway=True), *arguments[1:])
        ending = child.wait(time.monotonic() + START_SECONDS)
        if ending.code != 0:
            raise failed(f"sluice {arguments[0]} {ending}", child)

    def predicting(self) -> int:
        """Process id of the worker's prediction process: of its children the one with the models, the largest."""
        if self.worker is None:
            raise BenchmarkFailed("the worker does not run")
        return max(children(self.worker.pid), key=resident_megabytes)

    def processes(self) -> dict[str, int]:
        """Process ids by what they are, of those that take part in a prediction."""
        found = {f"gateway {number}": child.pid for number, (child, _) in enumerate(self.gateways, start=1)}
        if len(found) == 1:
            found = {"gateway": self.gateways[0][0].pid}
        return found | {"Redis": self.redis.pid, "prediction process": self.predicting()}

    def close(self, patience_seconds: float = 0.0) -> None:
        """End everything, by force what does not stop within that time."""
        if self._engine is not None:
            self._engine.dispose()
        # Redis, which was started first, leaves last: nobody has to find out that it is away.
        for tier in (self._running[1:], self._running[:1]):
            for child in tier if patience_seconds else ():
                child.ask_to_stop()
            for child in tier:
                child.wait(time.monotonic() + patience_seconds)

    def _launch_worker(self) -> Child:
        settings = {"SLUICE_WORKER_PROCESSES": "1", "SLUICE_WORKER_NAME": "worker"}
        self.worker = self._start("worker", self._environment(gateway=False) | settings)
        return self.worker

    def _wait_for_slots(self, worker: Child) -> None:
        wait_for(lambda: all(self._slots(port) for _, port in self.gateways), "no slot is announced", worker)

    def _slots(self, port: int) -> int:
        found = ready(port)
        return 0 if found is None else int(str(found["slots"]))

    def _start_redis(self) -> Child:
        program = embedded_redis.redis_program(self.folder, {"PATH": os.defpath})
        if self._options.append_only:
            with (self.folder.redis / "redis.conf").open("a") as file:
                file.write(APPEND_ONLY)
        child = self._launch(program)
        wait_for(lambda: embedded_redis.answers(self.folder), "Redis does not answer", child)
        return child

    def _environment(self, *, gateway: bool) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        inherited |= {"PYTHONUNBUFFERED": "1", "PROMETHEUS_MULTIPROC_DIR": str(self.folder.metrics)}
        made = self.folder.environment_of_gateways if gateway else self.folder.environment_of_workers
        chosen = {f"SLUICE_{name.upper()}": value for name, value in self._options.settings.items()}
        if self._options.database_url is not None:
            chosen["SLUICE_DATABASE_URL"] = self._options.database_url
        return made(inherited) | chosen

    def _start(self, verb: str, environment: Mapping[str, str], *arguments: str, name: str | None = None) -> Child:
        command = [sys.executable, "-P", "-m", "sluice", verb, *arguments]
        return self._launch(Program(name or verb, command, environment, self.folder.root))

    def _launch(self, program: Program) -> Child:
        child = Child(program, Logbook(self.folder.logs / f"{program.name}.log"))
        self._running.append(child)
        return child

    def _stop(self, child: Child) -> None:
        child.ask_to_stop()
        child.wait(time.monotonic() + STOP_SECONDS)
        self._running.remove(child)


@contextlib.contextmanager
def running(folder: DataFolder, options: Options, patience_seconds: float = 0.0) -> Iterator[System]:
    """Redis for the length of the block; what runs then is ended. Raises BenchmarkFailed."""
    system = System(folder, options)
    try:
        yield system
    finally:
        system.close(patience_seconds)


def ready(port: int) -> dict[str, object] | None:
    """What `/health/ready` says, None unless it is ready."""
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/health/ready")
        answer = connection.getresponse()
        return dict(json.loads(answer.read())) if answer.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def wait_for(condition: Callable[[], bool], otherwise: str, child: Child, seconds: float = START_SECONDS) -> None:
    """Poll until the condition holds while the child lives; raises BenchmarkFailed."""
    until = time.monotonic() + seconds
    while not condition():
        ending = child.ending()
        if ending is not None:
            raise failed(f"{child.program.name} {ending}", child)
        if time.monotonic() > until:
            raise failed(f"{otherwise} after {seconds:g} seconds", child)
        time.sleep(LOOK_SECONDS)


def failed(text: str, child: Child) -> BenchmarkFailed:
    lines = "\n".join(child.logbook.last_lines(8))
    return BenchmarkFailed(f"{text}; the end of {child.logbook.path}:\n{lines}")


def token(address: str, client: Mapping[str, str]) -> str:
    """A new access token for a client given by `client_id` and `client_secret`, good for a quarter of an hour.

    A gateway learns of a new client within half a second; raises BenchmarkFailed after ten.
    """
    until = time.monotonic() + 10
    while True:
        answer = httpx.post(
            f"{address}/oauth/token",
            data={"grant_type": "client_credentials"},
            auth=(client["client_id"], client["client_secret"]),
            trust_env=False,
        )
        if answer.is_success:
            return str(answer.json()["access_token"])
        if time.monotonic() > until:
            raise BenchmarkFailed(f"no token: {answer.text}")
        time.sleep(0.05)


def read_clients(file: Path) -> dict[str, dict[str, str]]:
    """Clients by name, each with `client_id` and `client_secret`."""
    found: dict[str, dict[str, str]] = json.loads(file.read_text())
    return found
