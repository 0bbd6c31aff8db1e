"""Copies of artifacts on this machine's disk, by digest and up to a size: the one not used for longest goes first.

What lies here is as little trusted as the disk it lies on: whoever opens a copy compares it with its digest. Several
processes share the folder; each of them may find gone what another one has made room with.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from model_store.stores.folder import move


class Cache:
    """The copies in `folder`, together at most `limit_bytes`."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes

    def path(self, digest: str) -> Path:
        """Where the copy is, if it is there."""
        return self._folder / digest[:2] / digest

    def open(self, digest: str) -> BinaryIO | None:
        """The copy; None where there is none. It stays readable while it is open, whatever becomes of its name."""
        try:
            descriptor = os.open(self.path(digest), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            # Missing, or a link that somebody laid there: a copy is fetched in its place.
            return None
        os.utime(descriptor)
        return os.fdopen(descriptor, "rb")

    def take(self, temporary: Path, digest: str) -> None:
        """Moves a file in, and others out until all have room; one that is larger than all the room is not taken."""
        size = temporary.stat().st_size
        if size > self._limit_bytes:
            temporary.unlink()
            return
        self._make_room(self._limit_bytes - size)
        temporary.chmod(0o440)
        os.utime(temporary)
        move(temporary, self.path(digest))

    def forget(self, digest: str) -> None:
        """Removes a copy; it may be gone already."""
        self.path(digest).unlink(missing_ok=True)

    def size_bytes(self) -> int:
        """What all copies take."""
        return sum(size for _, size, _ in self._copies())

    def clear(self) -> None:
        """Removes all copies, for a disk that is full."""
        self._make_room(0)

    def _make_room(self, most_bytes: int) -> None:
        copies = sorted(self._copies())
        left = sum(size for _, size, _ in copies)
        for _, size, path in copies:
            if left <= most_bytes:
                return
            path.unlink(missing_ok=True)
            left -= size

    def _copies(self) -> list[tuple[float, int, Path]]:
        found = []
        for path in self._folder.glob("??/*"):
            try:
                looked = path.lstat()
            except FileNotFoundError:
                continue
            found.append((looked.st_mtime, looked.st_size, path))
        return found
