"""The memory of processes over time, and how far the work was when it was looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.processes import resident_megabytes


@dataclass(slots=True)
class MemoryWatch:
    """Looks at processes, by what they are; a share of the work is 0 to 1."""

    processes: Mapping[str, int]
    seen: list[tuple[float, dict[str, float]]] = field(default_factory=list)

    def look(self, share: float) -> None:
        now = {}
        for name, pid in self.processes.items():
            with contextlib.suppress(FileNotFoundError, StopIteration):  # it has just ended
                now[name] = resident_megabytes(pid)
        self.seen.append((share, now))

    def most(self, name: str, first: float = 0.0, last: float = 1.0) -> float:
        """The most megabytes of a process while the share was between these; 0 where nobody looked."""
        return max((now[name] for share, now in self.seen if first <= share <= last and name in now), default=0.0)
