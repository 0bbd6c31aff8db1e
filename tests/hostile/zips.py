"""Zip archives byte by byte, with every field free to lie (APPNOTE.TXT 6.3)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass

_UNIX = 0x0314
_DATE = 0x21  # the first of January 1980


@dataclass(frozen=True, slots=True)
class Entry:
    """A member; what is None is what an honest writer would put there. `packed` are the bytes after compression."""

    name: str | bytes
    data: bytes = b""
    method: int = 0
    flags: int = 0
    mode: int = 0o100600
    local_name: bytes | None = None
    packed: bytes | None = None
    size: int | None = None
    crc: int | None = None
    offset: int | None = None

    @property
    def raw_name(self) -> bytes:
        return self.name if isinstance(self.name, bytes) else self.name.encode()

    @property
    def content(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflated(self.data) if self.method == 8 else self.data

    def fields(self) -> tuple[int, ...]:
        size = len(self.data) if self.size is None else self.size
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        return 20, self.flags, self.method, 0, _DATE, crc, len(self.content), size


def pack(entries: Iterable[Entry], *, comment: bytes = b"") -> bytes:
    """The archive of these members, in their order."""
    body, directory = bytearray(), bytearray()
    count = 0
    for entry in entries:
        begin = len(body)
        local = entry.raw_name if entry.local_name is None else entry.local_name
        # A member that claims another's place has no bytes of its own.
        if entry.offset is None:
            body += struct.pack("<4s5H3L2H", b"PK\x03\x04", *entry.fields(), len(local), 0) + local + entry.content
        offset = begin if entry.offset is None else entry.offset
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\x01\x02", _UNIX, *entry.fields(), len(entry.raw_name), 0, 0, 0, 0,
            entry.mode << 16, offset,
        )  # fmt: skip
        directory += entry.raw_name
        count += 1
    end = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, count & 0xFFFF, count & 0xFFFF, len(directory), len(body), len(comment)
    )
    return bytes(body + directory + end + comment)


def deflated(data: bytes) -> bytes:
    """Deflate without a header, as archives hold it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


def repeated(piece: bytes, times: int) -> bytes:
    """Deflate of the piece repeated, made without ever holding what it unpacks to: each block stands for itself."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = packer.compress(piece) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * times + deflated(b"")
