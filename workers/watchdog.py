"""The watchdog: ends a process whose inference hangs, and the record of which version it was running.

A native call that never returns cannot be interrupted from Python, and may even hold the interpreter's lock; a timer
of the C library ends the process without needing it. Only prefork children have one: a process that is shared, as in
the pools `threads` and `solo`, would take everything with it.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import sys
import threading
import time
from pathlib import Path

log = logging.getLogger(__name__)

RECORD_BYTES = 4096
ARM_SECONDS = 1.0


class Record:
    """A small file that says which versions a slot is running now; it outlives the process that wrote it."""

    def __init__(self, folder: Path, slot: str) -> None:
        self.path = folder / f"sluice-running-{slot}.json"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        # Its space is taken now: a disk that fills up later must not fail the inference that is to be noted.
        os.posix_fallocate(self._file, 0, RECORD_BYTES)

    def write(self, versions: list[tuple[str, int]]) -> None:
        text = json.dumps(versions).encode()[: RECORD_BYTES - 1]
        os.pwrite(self._file, text.ljust(RECORD_BYTES, b" "), 0)

    def close(self) -> None:
        try:
            self.write([])
        finally:
            os.close(self._file)


def read_record(folder: Path, slot: str) -> list[tuple[str, int]]:
    """The versions that a slot was running when its process ended; empty where nobody knows."""
    try:
        text = (folder / f"sluice-running-{slot}.json").read_text()
        return [(str(model), int(version)) for model, version in json.loads(text.strip() or "[]")]
    except (OSError, ValueError):
        return []


class Watchdog:
    """Bounds every inference of one session. `deadly` is false where ending the process would end others' work."""

    def __init__(self, record: Record, limit_seconds: float, *, deadly: bool) -> None:
        self._record = record
        self._limit = limit_seconds
        self._deadly = deadly
        self._lock = threading.Lock()
        self._running: dict[int, tuple[tuple[str, int], float]] = {}
        self._armed_at = float("-inf")
        self._last_inline: tuple[str, int] | None = None

    def pat(self) -> None:
        """The loop is alive: put off the end. Called every turn; re-arms at most once a second, since arming costs."""
        now = time.monotonic()
        with self._lock:
            overdue = [version for version, since in self._running.values() if now - since > self._limit]
        if overdue and self._deadly:
            # The loop lives, an inference in one of its threads does not: nothing but the process's end stops it.
            log.error("an inference of %s took longer than %s seconds; this process ends", overdue[0], self._limit)
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
                self._write()

    def begin(self, version: tuple[str, int]) -> int:
        """A slow inference begins in a thread; returns the number to end it with."""
        with self._lock:
            number = threading.get_ident()
            self._running[number] = (version, time.monotonic())
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
