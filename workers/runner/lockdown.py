"""The lock-down of a runner: the walls that it takes around itself before it imports anything native, and their level.

Each wall stands alone: Landlock refuses files, seccomp refuses sockets, processes and the rest of the kernel, the
namespaces leave no network to reach and no rights outside. What cannot be had is named; the parent decides whether
what is left will do (workers/runner/process.py).
"""

from __future__ import annotations

import contextlib
import enum
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from workers.runner import identity, kernel, landlock, lifeline, reach, seccomp
from workers.runner.identity import Identity
from workers.runner.namespaces import Namespaces


class Level(enum.IntEnum):
    """How far a runner is locked down, from nothing that can be relied upon to everything."""

    NONE = 0
    PARTIAL = 1
    STRICT = 2

    def __str__(self) -> str:
        return self.name.lower()


# Without one of these there is a way out. Without namespaces there still is no call that opens a socket: one wall
# stands where there should be two.
ESSENTIAL = ("capabilities", "landlock", "seccomp")
NAMESPACES, OWN_USER = "namespaces", "user"
WALLS = (*ESSENTIAL, NAMESPACES, OWN_USER)
REASON_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Lockdown:
    """What a runner got: its user's number, and each wall that it lacks, with the reason."""

    user: int
    missing: Mapping[str, str]

    @property
    def level(self) -> Level:
        """`user` does not count: it is a gain only where the worker is root."""
        if any(wall in self.missing for wall in ESSENTIAL):
            return Level.NONE
        return Level.PARTIAL if NAMESPACES in self.missing else Level.STRICT

    def __str__(self) -> str:
        lacks = ", ".join(f"{wall} ({reason})" for wall, reason in self.missing.items())
        return f"{self.level}, without {lacks}" if lacks else str(self.level)

    def to_json(self) -> dict[str, Any]:
        missing = [{"wall": wall, "reason": reason} for wall, reason in self.missing.items()]
        return {"level": str(self.level), "user": self.user, "missing": missing}

    @classmethod
    def from_json(cls, found: object) -> Self:
        """What `to_json` gave; ValueError for anything else."""
        if not isinstance(found, dict) or type(found.get("user")) is not int:
            raise ValueError("no lock-down is described")
        missing = found.get("missing")
        if not isinstance(missing, list) or not all(
            isinstance(row, dict) and row.get("wall") in WALLS for row in missing
        ):
            raise ValueError("unknown walls are missing")
        return cls(found["user"], {row["wall"]: str(row.get("reason"))[:REASON_CHARACTERS] for row in missing})


@dataclass(frozen=True, slots=True)
class Place:
    """Where a runner stands: our packages, its private folder, its only socket, the pipe that its parent holds."""

    source: Path
    folder: Path
    channel: int
    lifeline: int


def enter(place: Place, wanted: Identity | None) -> Lockdown:
    """Takes every wall that can be had around this process, for good; call it with one thread, before numpy is there.

    `wanted` is the user to become, None to stay. The rest of the order matters: each step needs what the next takes.
    """
    missing: dict[str, str] = {}
    within = reach.of(place.source, place.folder)
    namespaces = Namespaces()
    namespaces.leave_privileged()
    if wanted is not None:
        with _noted(missing, OWN_USER):
            wanted.take(place.folder, within.code)
    user = os.getuid()
    with _noted(missing, NAMESPACES):
        namespaces.leave_as_user()
    with _noted(missing, "capabilities"):
        identity.drop_capabilities()
    # By its final user, whom the kernel asks for; and before Landlock and seccomp, which let no signal out.
    lifeline.hold(place.lifeline)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    with _noted(missing, "landlock"):
        landlock.restrict(within.readable, within.writable)
    with _noted(missing, "seccomp"):
        seccomp.restrict(os.uname().machine, os.getpid(), place.channel)
    return Lockdown(user, missing)


@contextlib.contextmanager
def _noted(missing: dict[str, str], wall: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        missing[wall] = (error.strerror or str(error))[:REASON_CHARACTERS]
