"""Processes whose parent died before them: `sluice up` adopts those of its own children, and ends them.

A worker killed with SIGKILL cannot end the processes that it had started. Linux hands them to the nearest ancestor
that asked for it (PR_SET_CHILD_SUBREAPER, prctl(2)), so that none of them stays behind unseen.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Collection
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


class Orphans:
    """The adopted children of this process; whoever uses it tells which children are its own."""

    def __init__(self) -> None:
        """From now on descendants that lose their parent become children of this process."""
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER) failed")
        self._seen: set[int] = set()

    def look(self, own: Collection[int]) -> bool:
        """Kill those that were here at the last look already: they had their time to end. Whether any are left."""
        found = _orphans(own)
        for pid in found & self._seen:
            _kill(pid)
        self._seen = found
        return bool(found)

    def end(self, own: Collection[int] = (), *, within_seconds: float = 2.0) -> None:
        """Kill all of them, again and again, because ending one may orphan others."""
        until = time.monotonic() + within_seconds
        while (left := _orphans(own)) and time.monotonic() < until:
            for pid in left:
                _kill(pid)
            time.sleep(0.02)


def _orphans(own: Collection[int]) -> set[int]:
    """Children of this process that are not its own; ended ones are reaped on the way."""
    found = {pid for pid in _children() if pid not in own}
    for pid in list(found):
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                found.discard(pid)
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _children() -> list[int]:
    me = os.getpid()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _parent_of(entry) == me]


def _parent_of(entry: Path) -> int | None:
    try:
        text = (entry / "stat").read_text(errors="replace")
    except OSError:  # it ended while we were looking
        return None
    # The name in parentheses may hold spaces and parentheses itself: the fields start after the last one (proc(5)).
    return int(text.rpartition(")")[2].split()[1])
