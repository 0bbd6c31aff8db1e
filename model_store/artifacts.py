"""Bytes by digest in a folder that all processes share: written once and atomically, verified when opened.

`blobs/ab/<sha256>` holds models and their variants, `payloads/<name>` inputs and results of jobs that are too large for
SQL, `incoming/` what is still being written: a file there belongs to nobody after its writer died.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from model_store.errors import ArtifactCorrupt, ArtifactEmpty, ArtifactMissing, ArtifactTooLarge, StoreFull

PIECE_BYTES = 1024 * 1024
DIGEST = re.compile(r"[0-9a-f]{64}")
PAYLOAD_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")

# EFBIG: the file system, or the process's own limit (RLIMIT_FSIZE), takes no larger file.
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store now holds: the SHA-256 in hexadecimal, and the size in bytes."""

    digest: str
    size_bytes: int


class Receipt:
    """A file on its way into the store; left without `commit`, nothing of it remains."""

    def __init__(
        self, file: BinaryIO, temporary: Path, limit_bytes: int | None, keep: Callable[[Path, str], None]
    ) -> None:
        self._file = file
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
        with _full_disk():
            self._file.write(chunk)
        self._hash.update(chunk)
        self.size_bytes += len(chunk)

    def close(self) -> None:
        """Removes what was not committed."""
        # What a failed write left in the buffer cannot be written now either; the first error has said so.
        with contextlib.suppress(OSError):
            self._file.close()
        self.temporary.unlink(missing_ok=True)

    def commit(self) -> Stored:
        """Puts the file under its digest, durably; raises ArtifactEmpty, StoreFull."""
        if not self.size_bytes:
            raise empty()
        digest = self._hash.hexdigest()
        with _full_disk():
            self._file.flush()
            os.fchmod(self._file.fileno(), 0o440)
            os.fsync(self._file.fileno())
            self._file.close()
            self._keep(self.temporary, digest)
        return Stored(digest, self.size_bytes)


class Artifacts:
    """The store in the folder `root`; `limit_bytes` bounds what `receive` takes, not what Sluice itself adds."""

    def __init__(self, root: Path, limit_bytes: int) -> None:
        self.root = root
        self.limit_bytes = limit_bytes

    def receive(self) -> Receipt:
        """An empty file to write an upload into, as a context manager."""
        return self._receipt(self.limit_bytes)

    def add_file(self, path: Path) -> Stored:
        """Copies a file into the store, in pieces; raises ArtifactEmpty, StoreFull."""
        with path.open("rb") as source, self._receipt(None) as receipt:
            while piece := source.read(PIECE_BYTES):
                receipt.write(piece)
            return receipt.commit()

    def path(self, digest: str) -> Path:
        """Where the bytes of `digest` are, if they are there."""
        if not DIGEST.fullmatch(digest):
            raise ValueError(f"not a SHA-256 in hexadecimal: {digest[:80]!r}")
        return self.root / "blobs" / digest[:2] / digest

    def exists(self, digest: str) -> bool:
        return self.path(digest).is_file()

    def open_verified(self, digest: str) -> Path:
        """The path of a file whose bytes were just found to have this digest.

        Raises ArtifactMissing, or ArtifactCorrupt for other bytes, a symbolic link, or anything but a regular file.
        """
        path = self.path(digest)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ArtifactMissing(f"the store has no artifact {digest}") from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ArtifactCorrupt(f"artifact {digest} is a symbolic link") from error
            raise
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ArtifactCorrupt(f"artifact {digest} is not a regular file")
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise ArtifactCorrupt(f"artifact {digest} does not have the bytes that were stored")
        return path

    def delete(self, digest: str) -> None:
        """Removes the bytes of `digest`; they may be gone already."""
        self.path(digest).unlink(missing_ok=True)

    def put_payload(self, name: str, data: bytes) -> None:
        """Keeps a job's input or result under a name, durably; raises StoreFull."""
        target = self._payload(name)
        with _full_disk():
            file, temporary = self._create()
            try:
                with file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                _move(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)

    def get_payload(self, name: str) -> bytes:
        """The bytes kept under a name; raises ArtifactMissing."""
        try:
            return self._payload(name).read_bytes()
        except FileNotFoundError:
            raise ArtifactMissing(f"the store has no payload {name}") from None

    def delete_payload(self, name: str) -> None:
        self._payload(name).unlink(missing_ok=True)

    def sweep_incoming(self, older_than_seconds: float) -> int:
        """Removes what writers that died left behind; returns how many files."""
        return _sweep(self.root / "incoming", older_than_seconds)

    def sweep_payloads(self, older_than_seconds: float) -> int:
        """Removes payloads older than any job lives, such as those whose row was never committed; returns how many."""
        return _sweep(self.root / "payloads", older_than_seconds)

    def sweep_blobs(self, older_than_seconds: float, in_use: Callable[[str], bool]) -> int:
        """Removes blobs that nothing refers to and that nobody stored within the last `older_than_seconds`.

        An upload's bytes lie here a moment before its row is committed, and a variant's for a whole preparation: the
        age protects both, since storing the same bytes again renews it. Returns how many files were removed.
        """
        removed = 0
        for path in (self.root / "blobs").glob("??/*"):
            if _age_seconds(path) > older_than_seconds and not in_use(path.name):
                removed += self._remove_if_still_old(path, older_than_seconds)
        return removed

    def _remove_if_still_old(self, path: Path, older_than_seconds: float) -> int:
        # Moved away first: what is looked at then is exactly what is removed, also when the same bytes are stored now.
        aside = self.root / "incoming" / secrets.token_hex(16)
        aside.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            path.rename(aside)
        except FileNotFoundError:
            return 0
        if _age_seconds(aside) <= older_than_seconds:
            aside.rename(path)
            return 0
        aside.unlink()
        return 1

    def _receipt(self, limit_bytes: int | None) -> Receipt:
        with _full_disk():
            file, temporary = self._create()
        return Receipt(file, temporary, limit_bytes, self._keep)

    def _create(self) -> tuple[BinaryIO, Path]:
        temporary = self.root / "incoming" / secrets.token_hex(16)
        temporary.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "wb"), temporary

    def _keep(self, temporary: Path, digest: str) -> None:
        # The same bytes may lie there already: writing over them changes nothing, and heals a file that was damaged.
        _move(temporary, self.path(digest))

    def _payload(self, name: str) -> Path:
        if not PAYLOAD_NAME.fullmatch(name):
            raise ValueError(f"not a payload's name: {name[:80]!r}")
        return self.root / "payloads" / name


def too_large(limit_bytes: int) -> ArtifactTooLarge:
    return ArtifactTooLarge(f"the file is larger than the {limit_bytes} bytes that this store takes")


def empty() -> ArtifactEmpty:
    return ArtifactEmpty("the file is empty")


def _move(temporary: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    temporary.replace(target)
    # The name is as much a promise as the bytes: without this, a power cut may forget it.
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path, older_than_seconds: float) -> int:
    removed = 0
    for path in folder.glob("*"):
        if _age_seconds(path) > older_than_seconds:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def _age_seconds(path: Path) -> float:
    """Seconds since the file was written; 0 for one that is gone, so that nobody acts on it."""
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:
        return 0.0


@contextlib.contextmanager
def _full_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull("the store's disk is full; nothing was kept") from error
        raise
