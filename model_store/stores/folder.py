"""A folder as the store: written beside and moved into place, so that nothing half-written ever has a name."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from model_store.errors import ArtifactCorrupt, StoreEncrypted
from model_store.stores.store import BLOBS, Appender, Copy, Entry, Store, age_seconds

# An empty file in the store's folder, once a process with a storage key has used it.
ENCRYPTED = "encrypted"


class FolderStore(Store):
    """Files below `root`, under their names."""

    def agree(self, *, encrypted: bool) -> None:
        mark = self.root / ENCRYPTED
        if encrypted:
            self.root.mkdir(mode=0o750, parents=True, exist_ok=True)
            mark.touch(mode=0o640)
        elif mark.exists():
            # One process without the key, of many, would write everything readable from then on.
            raise StoreEncrypted(f"the store {self.root} is encrypted: it cannot be used without SLUICE_STORAGE_KEY")

    def keep(self, temporary: Path, name: str) -> None:
        move(temporary, self.path(name))

    def open(self, name: str) -> BinaryIO:
        path = self.path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise ArtifactCorrupt(f"{path.name} of the store is a symbolic link") from error
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise ArtifactCorrupt(f"{path.name} of the store is not a regular file")
        return os.fdopen(descriptor, "rb")

    def copies(self, name: str) -> Iterator[Copy]:
        yield Copy("store", self.open(name), self.path(name))

    def path(self, name: str) -> Path:
        return self.root / name

    def exists(self, name: str) -> bool:
        return self.path(name).is_file()

    def delete(self, name: str) -> None:
        self.path(name).unlink(missing_ok=True)

    def entries(self, folder: str) -> Iterator[Entry]:
        for path in (self.root / folder).glob("??/*" if folder == BLOBS else "*"):
            yield Entry(path.name, age_seconds(path))

    def remove_if_old(self, name: str, older_than_seconds: float) -> int:
        # Moved away first: what is looked at then is exactly what is removed, also when the same bytes are stored now.
        aside, path = self.root / "incoming" / secrets.token_hex(16), self.path(name)
        aside.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        try:
            path.rename(aside)
        except FileNotFoundError:
            return 0
        if age_seconds(aside) <= older_than_seconds:
            aside.rename(path)
            return 0
        aside.unlink()
        return 1

    def appender(self, name: str) -> Appender:
        return _FileAppender(self.path(name))

    def open_series(self, name: str, segments: int) -> BinaryIO:  # noqa: ARG002 - a file is read as far as it is asked for
        return self.open(name)

    def settle(self) -> None:
        """A folder forgets at once."""

    def segments(self, name: str) -> int:  # noqa: ARG002 - as above
        return 1


class _FileAppender(Appender):
    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file: BinaryIO = os.fdopen(os.open(path, flags, 0o600), "wb", buffering=0)

    def write(self, number: int, offset_bytes: int, segment: bytes) -> None:  # noqa: ARG002 - a file knows places only
        self._file.seek(offset_bytes)
        left = memoryview(segment)
        while left:
            left = left[self._file.write(left) :]
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def move(temporary: Path, target: Path) -> None:
    """Gives a file its name, durably, in the place of what has it."""
    target.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    temporary.replace(target)
    # The name is as much a promise as the bytes: without this, a power cut may forget it.
    descriptor = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
