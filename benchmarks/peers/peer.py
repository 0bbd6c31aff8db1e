"""A peer: programs that are installed into an environment of their own, started, and asked over HTTP."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import httpx

from benchmarks.peers.environment import Environment
from benchmarks.peers.forms import Form
from benchmarks.peers.processes import Group, running
from benchmarks.peers.workload import DIGITS, Workload
from sluice.embedded_redis import redis_server

HOST = "127.0.0.1"
START_SECONDS = 120.0
ANSWER_SECONDS = 35.0
LOOK_SECONDS = 0.2
PORTS = 3


@dataclass(frozen=True, slots=True)
class Target:
    """A server that answers now, and what its callers show it."""

    port: int
    token: Callable[[], str | None]

    def headers(self) -> dict[str, str]:
        token = self.token()
        return {} if token is None else {"Authorization": f"Bearer {token}"}


class Server(Protocol):
    """What is measured."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """What was measured, with its version."""

    @property
    def settings(self) -> str:
        """How it is set up, in a paragraph for people."""

    def forms(self, workload: str) -> tuple[Form, ...]:
        """The forms in which it takes a workload's images; none where it does not take them."""

    def install(self) -> None:
        """Make what it needs to start; raises BenchmarkFailed."""

    def serving(self, workload: Workload) -> contextlib.AbstractContextManager[Target]:
        """It runs and answers for the length of the block; raises BenchmarkFailed."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to run the programs in a folder of this package, without authentication.

    `commands` are started in this order, in that folder. In them and in `settings_of_programs`, `{bin}` stands for the
    environment's programs, `{redis}` for a redis-server, `{port}`, `{port2}`, `{port3}` for free ports (the first is
    the one that is asked), `{model}` for the model's files without suffix, and `{work}` for a folder to write to.
    """

    name: str
    environment: Environment
    packages: tuple[str, ...]
    commands: tuple[str, ...]
    settings_of_programs: Mapping[str, str] = field(default_factory=dict)
    for_digits: tuple[Form, ...] = ()
    for_photographs: tuple[Form, ...] = ()

    @property
    def version(self) -> str:
        return ", ".join(f"{package} {self.environment.version(package)}" for package in self.packages)

    @property
    def settings(self) -> str:
        return self.environment.settings

    def forms(self, workload: str) -> tuple[Form, ...]:
        return self.for_digits if workload == DIGITS else self.for_photographs

    def install(self) -> None:
        self.environment.install()

    @contextlib.contextmanager
    def serving(self, workload: Workload) -> Iterator[Target]:
        work = self.environment.root.with_name(f"{self.environment.root.name}-work")
        work.mkdir(exist_ok=True)
        ports = free_ports(PORTS)
        names = {f"port{number}": str(port) for number, port in enumerate(ports, start=1)} | {
            "port": str(ports[0]),
            "bin": str(self.environment.binaries),
            "redis": redis_server(),
            "model": str(workload.model),
            "work": str(work),
        }
        chosen = {name: value.format_map(names) for name, value in self.settings_of_programs.items()}
        variables = inherited() | {"THREADS": str(workload.threads), "PORT": str(ports[0])} | chosen
        groups = []
        with contextlib.ExitStack() as stack:
            for number, command in enumerate(self.commands):
                parts = [part.format_map(names) for part in command.split()]
                output = work / f"output-{number}.txt"
                groups.append(stack.enter_context(running(parts, variables, self.environment.programs, output)))
            target = Target(ports[0], lambda: None)
            wait_for_answer(target, self.forms(workload.name)[0], workload, groups)
            yield target


def inherited() -> dict[str, str]:
    """The environment of programs: ours, without what points to our own packages; TensorFlow says less."""
    left = ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")
    kept = {name: value for name, value in os.environ.items() if name not in left and not name.startswith("SLUICE_")}
    return kept | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONDONTWRITEBYTECODE": "1"}


def wait_for_answer(target: Target, form: Form, workload: Workload, groups: list[Group]) -> None:
    """Ask until the answer is a success; raises BenchmarkFailed where a program ends before, or after a while."""
    request = form.write(workload.images[:1])
    until = time.monotonic() + START_SECONDS
    said = "nothing"
    with httpx.Client(base_url=f"http://{HOST}:{target.port}", timeout=ANSWER_SECONDS, trust_env=False) as client:
        while True:
            try:
                answer = client.post(form.path, content=request.body, headers=dict(request.headers))
            except httpx.TransportError as error:
                said = str(error)
            else:
                if answer.is_success:
                    return
                said = f"{answer.status_code} {answer.text[:300]}"
            for group in groups:
                group.require_running()
            if time.monotonic() > until:
                raise groups[-1].failed(f"not ready after {START_SECONDS:g} seconds ({said})")
            time.sleep(LOOK_SECONDS)


def free_ports(count: int) -> list[int]:
    """TCP ports of the loopback address that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(socket.socket()) for _ in range(count)]
        for listener in listeners:
            listener.bind((HOST, 0))
        return [int(listener.getsockname()[1]) for listener in listeners]
