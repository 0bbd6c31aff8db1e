"""A file on its way into the store: counted, hashed, encrypted where the store is, and put in its place as a whole."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Self

from model_store.errors import ArtifactEmpty, ArtifactTooLarge, StoreFull

if TYPE_CHECKING:
    from model_store.sealed_files import SealedWriter

# EFBIG: the file system, or the process's own limit (RLIMIT_FSIZE), takes no larger file.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store now holds: the SHA-256 in hexadecimal, and the size in bytes."""

    digest: str
    size_bytes: int


class Receipt:
    """A file on its way into the store; left without `commit`, nothing of it remains."""

    def __init__(
        self,
        file: BinaryIO,
        temporary: Path,
        limit_bytes: int | None,
        keep: Callable[[Path, str], None],
        sealed: SealedWriter | None = None,
    ) -> None:
        self._file = file
        self._sealed = sealed
        self.temporary = temporary
        self._limit_bytes = limit_bytes
        self._keep = keep
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, chunk: bytes) -> None:
        """Appends; raises ArtifactTooLarge before anything over the limit is written, StoreFull on a full disk."""
        if self._limit_bytes is not None and self.size_bytes + len(chunk) > self._limit_bytes:
            raise too_large(self._limit_bytes)
        with full_disk():
            (self._sealed or self._file).write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def close(self) -> None:
        """Removes what was not committed."""
        # What a failed write left in the buffer cannot be written now either; the first error has said so.
        with contextlib.suppress(OSError):
            self._file.close()
        self.temporary.unlink(missing_ok=True)

    def commit(self) -> Stored:
        """Puts the file under its digest, durably; raises ArtifactEmpty, StoreFull, StoreUnavailable."""
        if not self.size_bytes:
            raise empty()
        digest = self._hash.hexdigest()
        with full_disk():
            if self._sealed is not None:
                self._sealed.finish()
            self._file.flush()
            os.fchmod(self._file.fileno(), 0o440)
            os.fsync(self._file.fileno())
            self._file.close()
            self._keep(self.temporary, digest)
        return Stored(digest, self.size_bytes)


def too_large(limit_bytes: int) -> ArtifactTooLarge:
    return ArtifactTooLarge(f"the file is larger than the {limit_bytes} bytes that this store takes")


def empty() -> ArtifactEmpty:
    return ArtifactEmpty("the file is empty")


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Makes a full disk a StoreFull; nothing was kept."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StoreFull("the store's disk is full; nothing was kept") from error
        raise
