"""The watchdog: ends a process whose inference hangs, and the record of which version it was running.

A native call that never returns cannot be interrupted from Python, and may even hold the interpreter's lock; a timer
of the C library ends the process without needing it. Only prefork children have one: a process that is shared, as in
the pools `threads` and `solo`, would take everything with it.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import mmap
import os
import sys
import threading
import time
from pathlib import Path

log = logging.getLogger(__name__)

RECORD_BYTES = 4096
LINES_REMEMBERED = 10_000
ARM_SECONDS = 1.0


class Record:
    """A small file that says which versions a slot is running now; it outlives the process that wrote it."""

    def __init__(self, folder: Path, slot: str) -> None:
        self.path = folder / f"sluice-running-{slot}.json"
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # Its space is taken now: a disk that fills up later must not fail the inference that is to be noted.
            os.posix_fallocate(file, 0, RECORD_BYTES)
            # In memory that the kernel keeps when the process dies: a note costs no system call.
            self._space = mmap.mmap(file, RECORD_BYTES)
        finally:
            os.close(file)
        self._lines: dict[tuple[str, int], bytes] = {}

    def write(self, versions: list[tuple[str, int]]) -> None:
        # One line; what a longer one before left behind it is not read.
        self._note(json.dumps(versions).encode()[: RECORD_BYTES - 1] + b"\n")

    def write_one(self, version: tuple[str, int]) -> None:
        """As `write([version])`, for a version whose batches are so short that this would be a tenth of one."""
        line = self._lines.get(version)
        if line is None:
            if len(self._lines) >= LINES_REMEMBERED:
                self._lines.clear()
            line = self._lines[version] = json.dumps([version]).encode() + b"\n"
        self._note(line)

    def close(self) -> None:
        try:
            self.write([])
        finally:
            self._space.close()

    def _note(self, line: bytes) -> None:
        self._space[: len(line)] = line


def read_record(folder: Path, slot: str) -> list[tuple[str, int]]:
    """The versions that a slot was running when its process ended; empty where nobody knows."""
    try:
        text = (folder / f"sluice-running-{slot}.json").read_text()
        line = text.partition("\n")[0].strip("\0 ")
        return [(str(model), int(version)) for model, version in json.loads(line or "[]")]
    except (OSError, ValueError):
        return []


class Watchdog:
    """Bounds every inference of one session. `deadly` is false where ending the process would end others' work."""

    def __init__(self, record: Record, limit_seconds: float, *, deadly: bool) -> None:
        self._record = record
        self._limit = limit_seconds
        self._deadly = deadly
        self._lock = threading.Lock()
        # What runs in each thread, and when it should have ended.
        self._running: dict[int, tuple[tuple[str, int], float]] = {}
        self._armed_at = float("-inf")
        self._last_inline: tuple[str, int] | None = None

    def pat(self) -> None:
        """The loop is alive: put off the end. Called every turn; re-arms at most once a second, since arming costs."""
        now = time.monotonic()
        with self._lock:
            overdue = [version for version, until in self._running.values() if now > until]
        if overdue and self._deadly:
            # The loop lives, an inference in one of its threads does not: nothing but the process's end stops it.
            log.error("an inference of %s, or its load, took too long; this process ends", overdue[0])
            faulthandler.dump_traceback(file=sys.__stderr__ or 2)
            os._exit(1)
        if self._deadly and now - self._armed_at >= ARM_SECONDS:
            self._armed_at = now
            faulthandler.dump_traceback_later(self._limit + ARM_SECONDS, exit=True, file=sys.__stderr__ or 2)

    def inline(self, version: tuple[str, int]) -> None:
        """A short inference begins in the loop; a record that already names it alone is left as it is."""
        if self._last_inline != version:
            with self._lock:
                self._last_inline = version
                if self._running:
                    self._write()
                else:
                    self._record.write_one(version)

    def begin(self, version: tuple[str, int], least_seconds: float = 0.0) -> int:
        """A slow inference begins in a thread, or something that may take longer; returns the number to end it with."""
        with self._lock:
            number = threading.get_ident()
            self._running[number] = (version, time.monotonic() + max(self._limit, least_seconds))
            self._last_inline = None
            self._write()
        return number

    def end(self, number: int) -> None:
        with self._lock:
            self._running.pop(number, None)
            self._write()

    def close(self) -> None:
        if self._deadly:
            faulthandler.cancel_dump_traceback_later()
        self._record.close()

    def _write(self) -> None:
        running = [version for version, _ in self._running.values()]
        self._record.write(running + ([self._last_inline] if self._last_inline else []))
