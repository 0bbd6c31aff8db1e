"""A store copied to another one as it lies there: bytes under names, encrypted or not.

A series is one file in a folder, and an object for each segment in a bucket. Which it is, its segments' heads say:
each begins with its length (model_store/files.py), and a name with a dot is a part's.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from model_store.stores.folder import ENCRYPTED
from model_store.stores.store import BLOBS, FILES, PAYLOADS, Store

PIECE_BYTES = 1024**2
LENGTH = struct.Struct("<I")


@dataclass(slots=True)
class Copied:
    """What was copied, and how many were there already."""

    files: int = 0
    size_bytes: int = 0
    kept: int = 0


def copy_store(source: Store, target: Store, told: Callable[[Copied], None]) -> Copied:
    """Copies everything; `told` hears of each file. Raises StoreUnavailable, StoreFull, StoreEncrypted, OSError."""
    target.agree(encrypted=source.exists(ENCRYPTED))
    copied = Copied()
    for folder in (BLOBS, PAYLOADS, FILES):
        for entry in source.entries(folder):
            name = f"{folder}/{entry.name[:2]}/{entry.name}" if folder == BLOBS else f"{folder}/{entry.name}"
            if folder == FILES and "." in entry.name:
                _copy_series(source, target, name, copied)
            else:
                _copy_file(source, target, name, copied)
            told(copied)
    return copied


def _copy_file(source: Store, target: Store, name: str, copied: Copied) -> None:
    with source.open(name) as file:
        if _size_of(target, name) == file.seek(0, 2):
            copied.kept += 1
            return
        file.seek(0)
        written, temporary = target.create()
        try:
            with written:
                while piece := file.read(PIECE_BYTES):
                    written.write(piece)
                    copied.size_bytes += len(piece)
            temporary.chmod(0o440)
            target.keep(temporary, name)
        finally:
            temporary.unlink(missing_ok=True)
    copied.files += 1


def _copy_series(source: Store, target: Store, name: str, copied: Copied) -> None:
    # Begun again rather than gone on with: a copy that was broken off may have written some of its segments.
    target.delete(name)
    target.settle()
    with source.open_series(name, source.segments(name)) as file, target.appender(name) as series:
        number = offset = 0
        while segment := _segment(file):
            series.write(number, offset, segment)
            number, offset = number + 1, offset + len(segment)
    copied.files += 1
    copied.size_bytes += offset


def _segment(file: BinaryIO) -> bytes:
    """The next segment with its head; nothing at the end, nor for one that its writer never finished."""
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return b""
    data = file.read(LENGTH.unpack(head)[0])
    return head + data if len(data) == LENGTH.unpack(head)[0] else b""


def _size_of(store: Store, name: str) -> int | None:
    try:
        with store.open(name) as file:
            return file.seek(0, 2)
    except FileNotFoundError:
        return None
