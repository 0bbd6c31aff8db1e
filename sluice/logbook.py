"""The log file of one child process: it writes, `sluice up` reads along and keeps the file small.

The child writes to the file itself rather than into a pipe, so that neither its speed nor its life depends on the
reader, and what it said last is still there when it dies.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import IO

LIMIT_BYTES = 8 * 1024**2
READ_BYTES = 256 * 1024
WARNINGS = frozenset({"WARNING", "ERROR", "CRITICAL"})


class Logbook:
    """One log file and, once it is full, its predecessor `<name>.1`: at most about 16 MiB on disk."""

    def __init__(self, path: Path, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self._limit_bytes = limit_bytes
        self._read_to = path.stat().st_size if path.exists() else 0
        self._partial = b""

    def open(self) -> IO[bytes]:
        """The file as a child's output: in append mode, so that cutting it does not leave a hole."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return os.fdopen(descriptor, "wb", buffering=0)

    def warnings(self) -> list[str]:
        """The warnings and errors written since the last call, as plain sentences; other lines stay in the file."""
        return [text for line in self.new_lines() if (text := warning_in(line)) is not None]

    def new_lines(self) -> list[str]:
        """The whole lines written since the last call (to this or to `warnings`)."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # A child that writes faster than this is read along with gaps: its file has everything.
            self._read_to = max(self._read_to, size - READ_BYTES)
            file.seek(self._read_to)
            text = self._partial + file.read(READ_BYTES)
            self._read_to = file.tell()
        *lines, self._partial = text.split(b"\n")
        return [line.decode(errors="replace") for line in lines]

    def last_lines(self, count: int) -> list[str]:
        """The last lines, without the empty ones."""
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - READ_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
        return [line.rstrip() for line in lines if line.strip()][-count:]

    def cut(self) -> None:
        """Move a full file's text to `<name>.1`; a line written in that very moment may be lost."""
        if not self.path.exists() or self.path.stat().st_size < self._limit_bytes:
            return
        shutil.copyfile(self.path, self.path.with_name(self.path.name + ".1"))
        os.truncate(self.path, 0)
        self._read_to = 0
        self._partial = b""


def warning_in(line: str) -> str | None:
    """What a JSON log line warns of, else None."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict) or str(record.get("level", "")).upper() not in WARNINGS:
        return None
    # Python's own warnings are addressed to developers: they stay in the file.
    if record.get("logger") == "py.warnings":
        return None
    return str(record.get("message", "")).partition("\n")[0][:300]
