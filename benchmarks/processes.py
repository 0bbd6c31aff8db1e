"""What Linux says of a process: its children, its memory, the processor time that it took."""

from __future__ import annotations

import os
from pathlib import Path

PROC = Path("/proc")
KILOBYTES = 1024
MEGABYTE = 1_000_000


def children(pid: int) -> list[int]:
    """The processes that any thread of a process started and that still live."""
    found = [tasks.read_text().split() for tasks in (PROC / str(pid) / "task").glob("*/children")]
    return sorted(int(child) for line in found for child in line)


def resident_megabytes(pid: int) -> float:
    """What lies in memory of it, pages that it shares with others counted in full."""
    return _kilobytes(PROC / str(pid) / "status", "VmRSS:") * KILOBYTES / MEGABYTE


def peak_megabytes(pid: int) -> float:
    """The most that ever lay in memory of it; of a new process, getrusage tells the peak of whoever started it."""
    return _kilobytes(PROC / str(pid) / "status", "VmHWM:") * KILOBYTES / MEGABYTE


def proportional_megabytes(pid: int) -> float:
    """As `resident_megabytes`, a page that it shares counted by its share: these may be added up."""
    return _kilobytes(PROC / str(pid) / "smaps_rollup", "Pss:") * KILOBYTES / MEGABYTE


def processor_seconds(pid: int) -> float:
    """User and system time of all its threads so far."""
    return sum(_ticks(pid)) / os.sysconf("SC_CLK_TCK")


def kernel_seconds(pid: int) -> float:
    """What of that was in system calls and interrupts."""
    return _ticks(pid)[1] / os.sysconf("SC_CLK_TCK")


def _ticks(pid: int) -> tuple[int, int]:
    # The second field, the name, may have spaces in it.
    fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def _kilobytes(file: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in file.read_text().splitlines() if line.startswith(name))
