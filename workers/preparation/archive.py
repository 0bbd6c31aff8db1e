"""The gate for `.keras` archives: their zip structure is checked byte by byte, and nothing in them is executed.

Only what every zip reader understands alike passes (APPNOTE.TXT 6.3): members one after the other from the first byte,
local headers equal to the central directory, no comment, nothing before, between or behind.
"""

from __future__ import annotations

import mmap
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from workers.preparation.findings import refused, shown
from workers.preparation.strict_json import SIZE_LIMIT_BYTES as JSON_LIMIT_BYTES

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
ASSET = re.compile(r"assets(?:/[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}){0,16}/vocabulary\.txt")
MEMBERS_LIMIT = 256
ASSET_LIMIT_BYTES = 64 * 1024**2
RATIO_LIMIT = 100
RATIO_FREE_BYTES = 1024**2
PIECE_BYTES = 1024**2
STORED, DEFLATED = 0, 8
# General purpose bits: 1 and 2 tell the deflater's effort, 11 that names are UTF-8. All others change the layout.
_FLAGS_ALLOWED = 0b1000_0000_0110

_END = struct.Struct("<4s4H2LH")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_END_MARK, _CENTRAL_MARK, _LOCAL_MARK = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_UNIX = 3


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive: where its bytes begin, how many there are, and how many they become."""

    name: str
    method: int
    crc: int
    stored_bytes: int
    size_bytes: int
    start: int


@dataclass(frozen=True, slots=True)
class Archive:
    """A `.keras` archive whose structure passed the gate."""

    path: Path
    members: dict[str, Member]

    @property
    def assets(self) -> list[str]:
        return sorted(name for name in self.members if name.startswith("assets/"))

    def read(self, name: str) -> bytes:
        """A whole member; for JSON, whose size the gate bounds. Raises UploadRefused as `copy` does."""
        with self.path.open("rb") as file:
            return b"".join(_pieces(file, self.members[name]))

    def copy(self, name: str, target: Path) -> None:
        """Unpacks a member into a new file; raises UploadRefused where the bytes differ from what was declared."""
        with self.path.open("rb") as file, target.open("xb") as copy:
            for piece in _pieces(file, self.members[name]):
                copy.write(piece)


def inspect(path: Path, limit_bytes: int) -> Archive:
    """Checks an upload's structure; `limit_bytes` bounds what all members together unpack to.

    Raises UploadRefused: zip_structure, zip_prefix, zip_suffix, zip_mismatch, zip_overlap, zip_encrypted, zip_method,
    zip_member, zip_members, zip_duplicate_member, zip_size, zip_ratio, json_size, missing_member.
    """
    with path.open("rb") as file:
        if path.stat().st_size < _END.size:
            raise refused("zip_structure", "the file is too short for an archive")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start, size, count = _end_record(data)
            rows = list(_central_rows(data, start, size, count))
            members = _members(data, rows, start)
    _check_sizes(members, limit_bytes)
    return Archive(path, {member.name: member for member in members})


def _end_record(data: mmap.mmap) -> tuple[int, int, int]:
    """Where the central directory begins, its bytes and its entries."""
    at = len(data) - _END.size
    if data[at : at + 4] != _END_MARK:
        if data.rfind(_END_MARK) >= 0 and data[:4] == _LOCAL_MARK:
            raise refused("zip_suffix", "the archive has a comment, or bytes behind its end")
        raise refused("zip_structure", "the file is no zip archive, or it is truncated")
    _, disk, first_disk, here, count, size, start, comment = _END.unpack(data[at:])
    if disk or first_disk or here != count or comment:
        raise refused("zip_structure", "the archive's end record is odd")
    if not 0 < count <= MEMBERS_LIMIT:
        raise refused("zip_members", f"the archive has {count} members; 1 to {MEMBERS_LIMIT} are taken")
    if 0xFFFFFFFF in (size, start):
        raise refused("zip_structure", "ZIP64 archives (from 2 GiB on) are not taken")
    if start + size != at:
        code = "zip_prefix" if data[:4] != _LOCAL_MARK else "zip_structure"
        raise refused(code, "the central directory does not stand where the archive's end record says")
    if data[:4] != _LOCAL_MARK:
        raise refused("zip_prefix", "the archive does not begin with its first member")
    return start, size, count


def _central_rows(data: mmap.mmap, start: int, size: int, count: int) -> Iterator[tuple[bytes, tuple[int, ...]]]:
    """Name and fields of each entry of the central directory."""
    at, end = start, start + size
    for _ in range(count):
        if at + _CENTRAL.size > end or data[at : at + 4] != _CENTRAL_MARK:
            raise refused("zip_structure", "the central directory is cut off")
        fields = _CENTRAL.unpack(data[at : at + _CENTRAL.size])[1:]
        lengths = fields[9:12]
        name = data[at + _CENTRAL.size : at + _CENTRAL.size + lengths[0]]
        at += _CENTRAL.size + sum(lengths)
        if lengths[2]:
            raise refused("zip_suffix", "a member has a comment")
        yield name, fields
    if at != end:
        raise refused("zip_structure", "the central directory is longer than its entries")


def _members(data: mmap.mmap, rows: list[tuple[bytes, tuple[int, ...]]], directory: int) -> list[Member]:
    names: set[bytes] = set()
    members = []
    at = 0
    for name, fields in sorted(rows, key=lambda row: row[1][15]):
        if name in names:
            raise refused("zip_duplicate_member", f"the archive has two members named {shown(name)}")
        names.add(name)
        _check_kind(name, fields)
        member, at = _check_local(data, name, fields, at)
        members.append(member)
    if at != directory:
        raise refused("zip_overlap", "there are bytes between the last member and the central directory")
    return members


def _check_kind(name: bytes, fields: tuple[int, ...]) -> None:
    made_by, flags, method, disk, external = fields[0] >> 8, fields[2], fields[3], fields[12], fields[14]
    known = (CONFIG.encode(), METADATA.encode(), WEIGHTS.encode())
    if name not in known and not ASSET.fullmatch(name.decode("ascii", errors="replace")):
        raise refused("zip_member", f"the archive has a member {shown(name)}, which no Keras model needs")
    if flags & 1:
        raise refused("zip_encrypted", f"{shown(name)} is encrypted")
    if flags & ~_FLAGS_ALLOWED or disk:
        raise refused("zip_structure", f"{shown(name)} has flags that are not taken")
    if method not in (STORED, DEFLATED):
        raise refused("zip_method", f"{shown(name)} is packed by method {method}; only stored and deflated are taken")
    if made_by == _UNIX and stat.S_IFMT(external >> 16) not in (0, stat.S_IFREG):
        raise refused("zip_member", f"{shown(name)} is not a regular file")


def _check_local(data: mmap.mmap, name: bytes, fields: tuple[int, ...], at: int) -> tuple[Member, int]:
    """The member, whose local header must stand at `at`, and where the next one must begin."""
    version, flags, method, time, date, crc, stored, size = fields[1:9]
    if fields[15] != at:
        raise refused("zip_overlap", f"{shown(name)} overlaps another member, or bytes lie before it")
    if data[at : at + 4] != _LOCAL_MARK or at + _LOCAL.size > len(data):
        raise refused("zip_structure", f"{shown(name)} has no header of its own")
    local = _LOCAL.unpack(data[at : at + _LOCAL.size])[1:]
    begin = at + _LOCAL.size
    if local[:8] != (version, flags, method, time, date, crc, stored, size) or data[begin : begin + local[8]] != name:
        raise refused("zip_mismatch", f"{shown(name)} differs between its header and the central directory")
    begin += local[8] + local[9]
    if method == STORED and stored != size:
        raise refused("zip_mismatch", f"{shown(name)} is stored with two different sizes")
    return Member(name.decode("ascii"), method, crc, stored, size, begin), begin + stored


def _check_sizes(members: list[Member], limit_bytes: int) -> None:
    sizes = {member.name: member.size_bytes for member in members}
    for required in (CONFIG, METADATA, WEIGHTS):
        if required not in sizes:
            raise refused("missing_member", f"the archive lacks {required}")
    for name in (CONFIG, METADATA):
        if sizes[name] > JSON_LIMIT_BYTES:
            raise refused("json_size", f"{name} is larger than {JSON_LIMIT_BYTES} bytes")
    if sum(sizes.values()) > limit_bytes:
        raise refused("zip_size", f"the members unpack to more than {limit_bytes} bytes")
    for member in members:
        if member.name.startswith("assets/") and member.size_bytes > ASSET_LIMIT_BYTES:
            raise refused("zip_size", f"{member.name} is larger than {ASSET_LIMIT_BYTES} bytes")
        if member.size_bytes > RATIO_FREE_BYTES and member.size_bytes > RATIO_LIMIT * member.stored_bytes:
            raise refused("zip_ratio", f"{member.name} unpacks to more than {RATIO_LIMIT} times its size")


def _pieces(file: BinaryIO, member: Member) -> Iterator[bytes]:
    """The member's bytes, at most as many as were declared, checked against size and CRC at the end."""
    crc = size = 0
    for piece in _unpacked(file, member):
        size += len(piece)
        crc = zlib.crc32(piece, crc)
        if size > member.size_bytes:
            break
        yield piece
    if size != member.size_bytes or crc != member.crc:
        raise refused("zip_mismatch", f"{member.name} does not unpack to what its header declares")


def _unpacked(file: BinaryIO, member: Member) -> Iterator[bytes]:
    file.seek(member.start)
    remaining = member.stored_bytes
    inflate = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None
    while remaining and (packed := file.read(min(PIECE_BYTES, remaining))):
        remaining -= len(packed)
        if inflate is None:
            yield packed
            continue
        try:
            while packed:
                yield inflate.decompress(packed, PIECE_BYTES)
                packed = inflate.unconsumed_tail
            if not remaining:
                yield inflate.flush()  # at most what its window still holds, 32 KiB
        except zlib.error:
            raise refused("zip_mismatch", f"{member.name} is damaged") from None
        if inflate.unused_data:
            raise refused("zip_mismatch", f"{member.name} has bytes behind its end")
