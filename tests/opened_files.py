"""Which files are opened while a block runs, by whatever process: told by the kernel (inotify(7))."""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

IN_OPEN = 0x20
HEADER = struct.Struct("iIII")

libc = ctypes.CDLL(None, use_errno=True)


@contextlib.contextmanager
def opened_files(root: Path) -> Iterator[set[Path]]:
    """Fills the set with the files below `root` that were opened, once the block has ended."""
    found: set[Path] = set()
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        watched = {libc.inotify_add_watch(descriptor, os.fsencode(folder), IN_OPEN): folder for folder in folders}
        assert min(watched) > 0
        yield found
        with contextlib.suppress(BlockingIOError):
            while events := os.read(descriptor, 1024**2):
                found.update(_named(events, watched))
    finally:
        os.close(descriptor)


def _named(events: bytes, watched: dict[int, Path]) -> Iterator[Path]:
    start = 0
    while start < len(events):
        watch, _, _, length = HEADER.unpack_from(events, start)
        start += HEADER.size
        if name := events[start : start + length].rstrip(b"\0"):
            yield watched[watch] / os.fsdecode(name)
        start += length
