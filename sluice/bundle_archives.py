"""A bundle's zip, read strictly: whatever a program unpacks it with finds the files that were verified, and no others.

Of a zip, some programs believe the directory at its end, and others, small ones on devices among them, the head before
each file (APPNOTE.TXT 6.3, section 4.3). So both have to say the same, and there is nothing between the files, before
the first of them, and behind the directory.
"""

from __future__ import annotations

import contextlib
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from auth.bundle_signatures import MOST_FILES, BundleInvalid, Fault

SIGNATURE_FILE = "bundle.jws"
# Of other methods `zipfile` unpacks all that it reads at once: kilobytes of bzip2 may be gigabytes.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
SIZES_FOLLOW = 0b1000
# Behind a file whose sizes follow it: mark, CRC-32 and two sizes of 4 or of 8 bytes.
TRAILER_BYTES = (16, 24)

_HEAD = struct.Struct("<4s5H3L2H")
_HEAD_MARK, _END_MARK = b"PK\x03\x04", b"PK\x05\x06"
_END_BYTES = 22
# Sizes of 8 bytes stand elsewhere, and this in their place.
_ELSEWHERE = 0xFFFFFFFF


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, whose members may be read, the signature among them.

    Raises OSError, BundleInvalid, and what `zipfile` and `struct` do.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        readable = len(members) <= MOST_FILES and all(member.compress_type in METHODS for member in members)
        if not readable or archive.namelist().count(SIGNATURE_FILE) != 1:
            raise BundleInvalid(Fault.MALFORMED)
        _require_nothing_else(file, archive)
        yield archive


def _require_nothing_else(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    ends = [*(member.header_offset for member in members[1:]), archive.start_dir]
    if members[0].header_offset != 0:
        raise BundleInvalid(Fault.OTHER_FILES)
    for member, end in zip(members, ends, strict=True):
        left = end - _end_of(file, member)
        if left not in (TRAILER_BYTES if member.flag_bits & SIZES_FOLLOW else (0,)):
            raise BundleInvalid(Fault.OTHER_FILES)
    file.seek(-_END_BYTES, 2)
    if file.read(4) != _END_MARK or archive.comment:
        raise BundleInvalid(Fault.OTHER_FILES)


def _end_of(file: BinaryIO, member: zipfile.ZipInfo) -> int:
    """Where a member's bytes end by the head before them, which says what the directory does."""
    file.seek(member.header_offset)
    mark, _, flags, method, _, _, crc, stored, size, name_bytes, extra_bytes = _HEAD.unpack(file.read(_HEAD.size))
    told = (crc, stored, size)
    known = (member.CRC, member.compress_size, member.file_size)
    follows = bool(flags & SIZES_FOLLOW)
    same = all(one in (right, _ELSEWHERE) or (follows and one == 0) for one, right in zip(told, known, strict=True))
    if (mark, flags, method) != (_HEAD_MARK, member.flag_bits, member.compress_type) or not same:
        raise BundleInvalid(Fault.OTHER_FILES)
    # `zipfile` ends a name at a NUL.
    if file.read(name_bytes) != member.filename.encode():
        raise BundleInvalid(Fault.OTHER_FILES)
    return member.header_offset + _HEAD.size + int(name_bytes) + int(extra_bytes) + member.compress_size
