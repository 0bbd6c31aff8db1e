"""Files of clients in the store, by name: uploads that are read in pieces, and results that grow while they are read.

`files/<name>` lies beside the artifacts, and is encrypted where they are. A result is a series of parts, each appended
to by one writer only and never changed: how much of a part counts is for the writer's row to say, so that a writer that
was killed leaves nothing that anybody reads, and one that wakes up too late does no harm.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from model_store.errors import ArtifactCorrupt, ArtifactMissing, SealBroken
from model_store.receipts import full_disk
from model_store.stores.store import FILES

if TYPE_CHECKING:
    from model_store.artifacts import Artifacts

FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Part:
    """How much of one part counts: its name, its segments, and the bytes that these are without and with their heads.

    `size_bytes` is of what was appended; `stored_bytes` of what lies in the store.
    """

    name: str
    segments: int = 0
    size_bytes: int = 0
    stored_bytes: int = 0


class PartWriter:
    """Appends to a part of its own; what was appended counts once `written` is committed to somebody's row."""

    def __init__(self, artifacts: Artifacts, name: str) -> None:
        with full_disk():
            self._series = artifacts.store.appender(file_name(name))
        self._artifacts = artifacts
        self.written = Part(name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._series.close()

    def append(self, data: bytes) -> None:
        """Adds one segment, durably.

        Raises StoreFull and StoreUnavailable, after which the next one is written over what is torn.
        """
        before = self.written
        sealed = self._artifacts.sealed(segment_name(before.name, before.segments), data)
        segment = _LENGTH.pack(len(sealed)) + sealed
        with full_disk():
            self._series.write(before.segments, before.stored_bytes, segment)
        self.written = Part(
            before.name, before.segments + 1, before.size_bytes + len(data), before.stored_bytes + len(segment)
        )


def read_part(artifacts: Artifacts, part: Part) -> Iterator[bytes]:
    """The segments of a part that count, in order; raises ArtifactMissing, ArtifactCorrupt."""
    if not part.segments:
        return
    left = part.stored_bytes
    try:
        with artifacts.store.open_series(file_name(part.name), part.segments) as file:
            for number in range(part.segments):
                head = file.read(_LENGTH.size)
                length = _LENGTH.unpack(head)[0] if len(head) == _LENGTH.size else -1
                left -= _LENGTH.size + length
                if length < 0 or left < 0 or len(data := file.read(length)) != length:
                    raise ArtifactCorrupt(f"segment {number} of a result is cut")
                yield artifacts.unsealed(segment_name(part.name, number), data)
    except FileNotFoundError:
        raise ArtifactMissing(f"the store has no file {part.name}") from None


def open_file(artifacts: Artifacts, name: str) -> BinaryIO:
    """An uploaded file's bytes, which can be sought in; each piece is verified as it is read, where it is encrypted.

    Raises ArtifactMissing, and ArtifactCorrupt also while it is read.
    """
    try:
        file = artifacts.store.open(file_name(name))
    except FileNotFoundError:
        raise ArtifactMissing(f"the store has no file {name}") from None
    try:
        return artifacts.plain(file, context_of(name))
    except SealBroken as error:
        file.close()
        raise ArtifactCorrupt(f"a file cannot be decrypted: {error}") from error


def delete_file(artifacts: Artifacts, name: str) -> None:
    """Removes a file or a part; it may be gone already, or go a moment later."""
    artifacts.store.delete(file_name(name))


def old_files(artifacts: Artifacts, older_than_seconds: float) -> Iterator[str]:
    """Names of files and parts that nobody wrote to for so long."""
    return (entry.name for entry in artifacts.store.entries(FILES) if entry.age_seconds > older_than_seconds)


def path_of(artifacts: Artifacts, name: str) -> Path:
    """Where a file lies, where the store is a folder."""
    return artifacts.store.path(file_name(name))


def file_name(name: str) -> str:
    """What the store calls it."""
    if not FILE_NAME.fullmatch(name):
        raise ValueError(f"not a file's name: {name[:80]!r}")
    return f"{FILES}/{name}"


def context_of(name: str) -> bytes:
    """What a file's key is bound to, so that no file can be put in another's place."""
    return b"file|" + name.encode()


def segment_name(name: str, number: int) -> str:
    return f"{name}#{number}"
