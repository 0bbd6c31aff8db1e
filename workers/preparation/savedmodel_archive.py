"""Unpacking a SavedModel's zip or tar.gz: plain files below one folder, bounded in number and size; in a runner."""

from __future__ import annotations

import contextlib
import errno
import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from workers.errors import UploadRefused
from workers.preparation.archive import PIECE_BYTES, RATIO_FREE_BYTES, RATIO_LIMIT
from workers.preparation.findings import refused, shown
from workers.runner.archive import MEMBERS

ZIP, GZIP = b"PK\x03\x04", b"\x1f\x8b"
NAME_CHARACTERS = 512
# Of each part of a name, in UTF-8: more than this no file system takes.
PART_BYTES = 255
# Python's other decompressors take as much memory as a member asks for, and raise errors that name a failing disk.
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
_ENCRYPTED = 1
# What readers of damaged archives raise.
_BROKEN = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    gzip.BadGzipFile,
    EOFError,
    NotImplementedError,
    ValueError,
    OverflowError,
    RecursionError,  # of tarfile, on header after header that tells of the next one
    struct.error,
)


def unpack(packed: Path, folder: Path, limit_bytes: int) -> int:
    """Writes the archive's regular files below `folder`, which must not exist, and says how many there are.

    Raises UploadRefused (savedmodel_archive) for links, devices, encrypted members, methods beside METHODS, names that
    lead elsewhere or come twice, more than MEMBERS files or `limit_bytes`, what unpacks to RATIO_LIMIT times its size,
    and what is neither format. How much memory a header may ask for, and how long it takes, is the runner's own limit.
    """
    folder.mkdir()
    with packed.open("rb") as file:
        mark = file.read(4)
    stored_bytes = packed.stat().st_size
    bound = limit_bytes if limit_bytes <= RATIO_FREE_BYTES else min(limit_bytes, _ratio_bytes(stored_bytes))
    try:
        if mark == ZIP:
            with zipfile.ZipFile(packed) as archive, contextlib.closing(_zipped(archive)) as members:
                return _write(members, folder, bound)
        if mark.startswith(GZIP):
            with tarfile.open(packed, "r:gz") as tar, contextlib.closing(_tarred(tar)) as members:
                return _write(members, folder, bound)
    except _BROKEN as error:
        raise _damaged() from error
    except OSError as error:
        # A place in the file that there cannot be; whatever else the disk says is no finding.
        if error.errno == errno.EINVAL:
            raise _damaged() from error
        raise
    raise refused("savedmodel_archive", "a SavedModel comes as a zip archive or as a tar.gz of its folder")


def _damaged() -> UploadRefused:
    return refused("savedmodel_archive", "the archive is damaged, or no other reader would understand it")


def _ratio_bytes(stored_bytes: int) -> int:
    return max(RATIO_FREE_BYTES, RATIO_LIMIT * stored_bytes)


def _zipped(archive: zipfile.ZipFile) -> Generator[tuple[str, IO[bytes]]]:
    for member in archive.infolist():
        if member.is_dir():
            continue
        kind = member.external_attr >> 28  # the file's type in Unix's mode bits; 8 is a regular file
        if kind not in (0, 8) or member.flag_bits & _ENCRYPTED:
            raise refused("savedmodel_archive", f"{shown(member.filename)} is no plain file")
        if member.compress_type not in METHODS:
            raise refused("savedmodel_archive", f"{shown(member.filename)} is neither stored nor deflated")
        with archive.open(member) as content:
            yield member.filename, content


def _tarred(tar: tarfile.TarFile) -> Generator[tuple[str, IO[bytes]]]:
    for member in tar:
        if member.isdir():
            continue
        content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
        if content is None:
            raise refused("savedmodel_archive", f"{shown(member.name)} is no plain file")
        yield member.name, content


def _write(members: Iterator[tuple[str, IO[bytes]]], folder: Path, limit_bytes: int) -> int:
    count = 0
    for name, content in members:
        count += 1
        if count > MEMBERS:
            raise refused("savedmodel_archive", f"the archive has more than {MEMBERS} files")
        path = folder / _checked(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as target:
                while piece := content.read(PIECE_BYTES):
                    limit_bytes -= len(piece)
                    if limit_bytes < 0:
                        raise refused("savedmodel_archive", "the files unpack to more than is taken")
                    target.write(piece)
        except (FileExistsError, NotADirectoryError) as error:
            raise refused("savedmodel_archive", f"{shown(name)} stands in the archive twice") from error
    return count


def _checked(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and len(name) <= NAME_CHARACTERS
    plain = plain and all(len(part.encode()) <= PART_BYTES for part in path.parts)
    if path.is_absolute() or ".." in path.parts or not path.parts or not plain:
        raise refused("savedmodel_archive", f"the name {shown(name)} is not taken")
    return path
