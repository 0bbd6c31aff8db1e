"""Processor time by process, for each request of the load that is measured meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping

from benchmarks.load import Measurement
from benchmarks.processes import processor_seconds


class Meter:
    """Adds up what some processes took while it ran, and the requests that they answered."""

    def __init__(self, processes: Mapping[str, int], clock: Callable[[int], float] = processor_seconds) -> None:
        """Process ids by what they are; `clock` gives the seconds of one so far."""
        self._clock = clock
        self._processes = processes
        self._seconds = dict.fromkeys(processes, 0.0)
        self._requests = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Within the block, time is counted."""
        before = {name: self._clock(pid) for name, pid in self._processes.items()}
        yield
        for name, pid in self._processes.items():
            self._seconds[name] += self._clock(pid) - before[name]

    def count(self, measured: Measurement) -> None:
        """These requests were answered in the time that was counted."""
        self._requests += measured.requests

    def mean_seconds(self) -> dict[str, float]:
        """By process, for one request; empty before the first one."""
        if not self._requests:
            return {}
        return {name: seconds / self._requests for name, seconds in self._seconds.items()}
