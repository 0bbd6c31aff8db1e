"""What a place for bytes has to do: keep files under names as wholes, give them back, and tell what it has.

Names are paths of few parts: `blobs/ab/<sha256>`, `payloads/<name>`, `files/<name>`. What the bytes mean, whether they
are encrypted and whether they are the right ones is the business of model_store/artifacts.py.
"""

from __future__ import annotations

import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

BLOBS, PAYLOADS, FILES = "blobs", "payloads", "files"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that is kept: the last part of its name, and how long ago it was written."""

    name: str
    age_seconds: float


@dataclass(frozen=True, slots=True)
class Copy:
    """A local copy of something kept, opened: where it came from, and a path that is good while it is open."""

    place: str
    file: BinaryIO
    path: Path


class Appender(ABC):
    """Writes the segments of a series, each durably, by one writer only."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def write(self, number: int, offset_bytes: int, segment: bytes) -> None:
        """Writes the segment of this number, which begins so many bytes from the first one's beginning.

        A segment that could not be written is written again under the same number. Raises OSError, StoreUnavailable.
        """

    @abstractmethod
    def close(self) -> None:
        """Nothing more is written."""


class Store(ABC):
    """A place for bytes; `root` is a local folder, for what is on its way and for what is at hand.

    Every method may raise StoreUnavailable where the place can be away, and OSError of the local disk.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @abstractmethod
    def agree(self, *, encrypted: bool) -> None:
        """See that all processes encrypt or none does; raises StoreEncrypted."""

    def create(self) -> tuple[BinaryIO, Path]:
        """An empty local file to write into; nobody sees it before it is kept."""
        temporary = self.root / "incoming" / secrets.token_hex(16)
        temporary.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "wb"), temporary

    def sweep_incoming(self, older_than_seconds: float) -> int:
        """Removes what writers that died left behind; returns how many files."""
        removed = 0
        for path in (self.root / "incoming").glob("*"):
            if age_seconds(path) > older_than_seconds:
                path.unlink(missing_ok=True)
                removed += 1
        return removed

    @abstractmethod
    def keep(self, temporary: Path, name: str) -> None:
        """Puts a written local file under a name, whole and durably, in the place of what is there."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """What is kept under a name, which can be sought in; raises FileNotFoundError, ArtifactCorrupt."""

    @abstractmethod
    def copies(self, name: str) -> Iterator[Copy]:
        """Local copies of a blob, to be looked at one after the other until one of them is right.

        Going on to the next says that the last one was damaged. Raises FileNotFoundError, ArtifactCorrupt.
        """

    @abstractmethod
    def path(self, name: str) -> Path:
        """Where the bytes of a name are on this machine, if they are there."""

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether something is kept under a name."""

    @abstractmethod
    def delete(self, name: str) -> None:
        """Removes what is under a name, also a series; it may be gone already, or go a moment later."""

    @abstractmethod
    def entries(self, folder: str) -> Iterator[Entry]:
        """What a folder holds, a series as one; read on as it is asked for."""

    @abstractmethod
    def remove_if_old(self, name: str, older_than_seconds: float) -> int:
        """Removes a blob unless it was stored again within that time; returns how many were removed."""

    @abstractmethod
    def appender(self, name: str) -> Appender:
        """Begins a series; raises FileExistsError where somebody did already."""

    @abstractmethod
    def open_series(self, name: str, segments: int) -> BinaryIO:
        """The first so many segments of a series one after the other; raises FileNotFoundError, also while it reads."""

    @abstractmethod
    def segments(self, name: str) -> int:
        """How many segments of a series are there to be read, whether they count or not."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until what was deleted is gone."""


def age_seconds(path: Path) -> float:
    """Seconds since the file was written; 0 for one that is gone, so that nobody acts on it."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0
