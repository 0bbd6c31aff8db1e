"""Files that commands write what they fetched to: checked before anything is asked, and there only when complete."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sluice.failures import CommandFailed


def require_place(path: Path) -> None:
    """Raises CommandFailed where no file could be written there."""
    folder = path.absolute().parent
    if path.is_dir():
        reason = "it is a folder"
    elif not folder.is_dir():
        reason = f"there is no folder {folder}"
    elif not os.access(path if path.exists() else folder, os.W_OK):
        reason = "you may not write there"
    else:
        return
    raise CommandFailed(f"cannot write {path}: {reason}")


def write_lines(path: Path, pieces: Iterable[bytes], *, even_none: bool = True) -> int:
    """Write the pieces as they come; returns how many lines they are. Raises CommandFailed, and whatever `pieces` does.

    Without `even_none`, a file that is there stays as it is where there is nothing to be written.
    """
    lines = written = 0
    # Under another name until it is whole: a file that is there is complete. A device is no such file.
    device = path.exists() and not path.is_file()
    partial = path if device else path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            for piece in pieces:
                lines += piece.count(b"\n")
                written += file.write(piece)
        if not device and (written or even_none):
            partial.replace(path)
    except OSError as error:
        raise CommandFailed(f"cannot write {path}: {error.strerror}") from error
    finally:
        if not device:
            partial.unlink(missing_ok=True)
    return lines
