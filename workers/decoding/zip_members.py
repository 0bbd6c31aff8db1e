"""Files out of a zip archive, in the child: which members are files, and their bytes under a limit.

An archive of some kilobytes may unpack to petabytes, and say so or not.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from workers.decoding.rows import refused

MOST_MEMBERS = 1_000_000
FILE_BYTES = 32 * 1024**2
# Images and recordings are compressed already. What all members unpack to, to the bytes of the archive.
RATIO_LIMIT = 100
RATIO_FREE_BYTES = 1024**2
ENCRYPTED = 0x1
STORED_OR_DEFLATED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
NAME_CHARACTERS = 80


class MemberUnfit(Exception):
    """A member whose bytes cannot be had; the message says why."""


@dataclass(slots=True)
class Members:
    """The files of an archive that is being read, in the order of its directory."""

    archive: zipfile.ZipFile
    files: list[zipfile.ZipInfo]

    def content(self, member: zipfile.ZipInfo, most_bytes: int = FILE_BYTES) -> bytes:
        """A member's bytes, of which no more are unpacked than it may have, whatever it declares.

        Raises MemberUnfit.
        """
        if member.flag_bits & ENCRYPTED or member.compress_type not in STORED_OR_DEFLATED:
            raise MemberUnfit("the file is encrypted, or neither stored nor deflated")
        try:
            with self.archive.open(member) as file:
                content = file.read(most_bytes + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError):
            raise MemberUnfit("the file cannot be unpacked") from None
        if len(content) > most_bytes:
            raise MemberUnfit(f"the file has more than {most_bytes:,} bytes")
        return content


def open_members(path: str, most_rows: int) -> Members:
    """The files of the zip archive at `path`; raises UploadRefused: zip_invalid, zip_too_large, zip_ratio."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise refused("zip_invalid", "the file is no zip archive, or it is truncated") from error
    _require_honest_sizes(archive, os.path.getsize(path))
    files = [member for member in archive.infolist() if _is_file(member)]
    if len(files) > min(most_rows, MOST_MEMBERS):
        raise refused("zip_too_large", f"the archive has {len(files):,} files, which are too many")
    return Members(archive, files)


def told(member: zipfile.ZipInfo, error: Exception) -> str:
    """What is wrong with a member, behind its name as it may be shown."""
    name = "".join(character for character in member.filename[-NAME_CHARACTERS:] if character.isprintable())
    return f"{name}: {error}"


def _require_honest_sizes(archive: zipfile.ZipFile, size_bytes: int) -> None:
    """Refuses members that share their bytes, as those of a bomb do (Fifield, "A better zip bomb"), and vast ones."""
    members = archive.infolist()
    if sum(member.compress_size for member in members) > size_bytes:
        raise refused("zip_invalid", "members of the archive overlap")
    if sum(member.file_size for member in members) > RATIO_LIMIT * size_bytes + RATIO_FREE_BYTES:
        raise refused("zip_ratio", f"the archive unpacks to more than {RATIO_LIMIT} times its size")


def _is_file(member: zipfile.ZipInfo) -> bool:
    """Not a folder, nor what desktops add of their own: `__MACOSX/` and names that begin with a dot."""
    path = PurePosixPath(member.filename)
    return not member.is_dir() and not path.name.startswith(".") and "__MACOSX" not in path.parts
