"""What callers saw, as lines of JSON in a file that only grows: each submit, each look at a job, each fault.

Times are seconds since 1970 by the clock of the machine that writes; `since` is when the question went out, `at` when
its answer was there, so that a checker knows which looks came after which.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

GROUP_LINES = 200


@dataclass(frozen=True, slots=True)
class Asked:
    """A submit goes out: its key, which every retry repeats, and its one instance."""

    what: ClassVar[str] = "asked"
    at: float
    key: str
    model: str
    row: list[float]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submit was answered with a job."""

    what: ClassVar[str] = "accepted"
    at: float
    key: str
    job: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A submit was answered with a refusal that says it was not taken (4xx)."""

    what: ClassVar[str] = "refused"
    at: float
    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody knows whether a submit was taken: no answer, or an error of the system's own. It is sent again."""

    what: ClassVar[str] = "unknown"
    at: float
    key: str
    why: str


@dataclass(frozen=True, slots=True)
class Seen:
    """A look at a job: `gone` where there is no such job. `fence` is known where the look was at its row, else -1."""

    what: ClassVar[str] = "seen"
    since: float
    at: float
    job: str
    state: str
    attempts: int = 0
    fence: int = -1
    rows: list[list[float]] | None = None
    code: str | None = None
    created: float | None = None
    started: float | None = None
    finished: float | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """What the database holds of a job in the end."""

    what: ClassVar[str] = "kept"
    job: str
    state: str
    results: int


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that was brought about: from `begin` to `end` something was broken."""

    what: ClassVar[str] = "fault"
    case: str
    name: str
    begin: float
    end: float


Event = Asked | Accepted | Refused | Unknown | Seen | Kept | Fault
KINDS = {kind.what: kind for kind in (Asked, Accepted, Refused, Unknown, Seen, Kept, Fault)}
GONE = "gone"


class Journal:
    """Appends events; what was `note`d is on the disk after `sync`, which a group of lines does by itself."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1024 * 1024)
        self._lines = 0

    def note(self, event: Event) -> None:
        self._file.write(written(event))
        self._lines += 1
        if self._lines >= GROUP_LINES:
            self.sync()

    def sync(self) -> None:
        self._lines = 0
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self.sync()
        self._file.close()


def written(event: Event) -> str:
    """The event as a line; what is None stands in none."""
    document = {name: value for name, value in asdict(event).items() if value is not None}
    return json.dumps({"what": event.what, **document}, separators=(",", ":")) + "\n"


def read(path: Path) -> Iterator[Event]:
    """The events of a file, in order; a last line that was cut off by a crash is left out."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield parsed(line)


def parsed(line: str) -> Event:
    document = json.loads(line)
    kind = KINDS[document.pop("what")]
    known = {field.name for field in fields(kind)}
    event: Event = kind(**{name: value for name, value in document.items() if name in known})
    return event


def read_all(paths: Iterable[Path]) -> list[Event]:
    """The events of several files, one file after the other."""
    return [event for path in paths for event in read(path)]
