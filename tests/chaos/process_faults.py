"""Processes of Sluice that are killed, stand still, are restarted, or have a wrong clock."""

from __future__ import annotations

import contextlib
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import psutil

from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.chaos.servers import PostgreSQL

# Debian's package libfaketime; empty where it is not there.
FAKE_CLOCK = next(map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), "")


class WorkerChildKilled(Fault):
    """A worker's child is killed in mid-batch."""

    case = "C02"

    def begin(self, on: Installation, chance: random.Random) -> None:
        children = on.children(chance.choice(on.names("worker")))
        signalled(chance.sample(children, min(1, len(children))), signal.SIGKILL)


class WorkerMainKilled(Fault):
    """A worker's main process is killed."""

    case = "C02"

    def begin(self, on: Installation, chance: random.Random) -> None:
        signalled([on.process(chance.choice(on.names("worker")))], signal.SIGKILL)


class WorkersKilled(Fault):
    """Every process of every worker is killed at once; it lasts until a supervisor has started them again."""

    case = "C02"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - all of them
        for name in on.names("worker"):
            signalled([on.process(name), *on.children(name)], signal.SIGKILL)

    def end(self, on: Installation) -> None:
        on.wait_until_started()


class WorkersStopped(Fault):
    """All workers stand still for longer than their leases, and go on."""

    case = "C21"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - all of them
        for name in on.names("worker"):
            signalled([on.process(name), *on.children(name)], signal.SIGSTOP)

    def end(self, on: Installation) -> None:
        for name in on.names("worker"):
            signalled([on.process(name), *on.children(name)], signal.SIGCONT)


class OneWorkerStopped(WorkersStopped):
    """One worker stands still for longer than its leases, and another takes its jobs."""

    def begin(self, on: Installation, chance: random.Random) -> None:
        name = chance.choice(on.names("worker"))
        signalled([on.process(name), *on.children(name)], signal.SIGSTOP)


class LeaderKilled(Fault):
    """The leading gateway is killed with requests in flight."""

    case = "C10"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - the one that leads
        signalled([on.process(on.leader)], signal.SIGKILL)


class GatewaysKilled(Fault):
    """Both gateways are killed with requests in flight."""

    case = "C10"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - all of them
        for name in on.names("gateway"):
            signalled([on.process(name)], signal.SIGKILL)


class Everything(Fault):
    """Every process of Sluice is killed at once; it lasts until a supervisor has started them again."""

    case = "C02"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - all of them
        for name in on.members:
            signalled([on.process(name), *on.children(name)], signal.SIGKILL)

    def end(self, on: Installation) -> None:
        on.wait_until_started()


class RollingRestart(Fault):
    """All workers and all gateways are restarted in good order, one after the other."""

    case = "C20"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - all of them
        for name in on.members:
            on.restart(name)
            on.wait_until_ready()


@dataclass(slots=True)
class ClockMoved(Fault):
    """A process's clock is wrong."""

    case: ClassVar[str] = "C14"
    kind: str = "worker"
    offset: str = "+1h"

    @property
    def name(self) -> str:
        return f"The clock of a {self.kind} is wrong by {self.offset}, {self.seconds:g} s"

    def fits(self, on: Installation) -> bool:
        # On SQLite the database's clock is that of whatever process asks.
        return bool(FAKE_CLOCK) and isinstance(on.database, PostgreSQL)

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - the first one
        fake = {"LD_PRELOAD": FAKE_CLOCK, "FAKETIME": self.offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        on.restart(on.names(self.kind)[0], fake)

    def end(self, on: Installation) -> None:
        on.restart(on.names(self.kind)[0])


def signalled(processes: list[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
