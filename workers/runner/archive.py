"""A folder as one tar archive, so that the store can keep a SavedModel under one digest; unpacked in a runner only."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from workers.errors import UploadRefused

MEMBERS = 10_000


def pack(folder: Path, archive: Path) -> None:
    """Write the folder's regular files; the same files give the same bytes, whoever packs them and when."""
    with tarfile.open(archive, "w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and not path.is_symlink():
                member = tarfile.TarInfo(path.relative_to(folder).as_posix())
                member.size = path.stat().st_size
                with path.open("rb") as content:
                    tar.addfile(member, content)


def unpack(archive: Path, folder: Path) -> None:
    """Write the archive's regular files below `folder`, which must not exist.

    Raises UploadRefused (`archive_invalid`) for links, devices, sparse files, names that lead elsewhere or come twice,
    and what is no tar. How large a file may be is the runner's own limit.
    """
    folder.mkdir()
    try:
        with tarfile.open(archive, "r:") as tar:
            for count, member in enumerate(tar):
                if count >= MEMBERS:
                    raise UploadRefused("the archive has too many files", code="archive_invalid")
                _write(tar, member, folder)
    except tarfile.TarError as error:
        raise UploadRefused("the archive is no tar file", code="archive_invalid") from error


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path) -> None:
    name = PurePosixPath(member.name)
    # `extractall` with a filter would do, but Python 3.11.0 to 3.11.3 lack it. Sparse files count as regular there.
    plain = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
    if name.is_absolute() or ".." in name.parts or not name.parts or not (plain or member.isdir()):
        raise UploadRefused("the archive holds something that is no plain file", code="archive_invalid")
    path = folder / name
    try:
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tar.extractfile(member) or io.BytesIO() as content, path.open("xb") as target:
            shutil.copyfileobj(content, target, 1024**2)
    except (FileExistsError, NotADirectoryError, ValueError) as error:
        raise UploadRefused("the archive holds a file twice", code="archive_invalid") from error
