"""What the statistics extension tells: how many predictions of a version this gateway's process answered, and how fast.

Source: docs/protocol/extension_statistics.md of Triton's server. Counted since the process began, synchronous ones
only: jobs end in workers, and how long these compute is in their metrics.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

# Of versions; those that nobody has asked for the longest time, or that are gone, make room for others.
MOST_VERSIONS = 2000
NANOSECONDS = 1_000_000_000


@dataclass(slots=True)
class VersionFigures:
    """One version: requests answered and failed, the seconds that they took, and the instances answered.

    `last` is when the last request ended, in seconds since 1970; 0 before the first.
    """

    succeeded: int = 0
    succeeded_seconds: float = 0.0
    failed: int = 0
    failed_seconds: float = 0.0
    instances: int = 0
    last: float = 0.0


NOTHING = VersionFigures()


class InferenceStatistics:
    """Figures by model and version. All of it runs on the gateway's event loop."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], VersionFigures] = OrderedDict()

    def count(self, model: str, version: int, status: int, instances: int, seconds: float) -> None:
        """One prediction that was let in: its answer's status, of how many instances, and how long it took."""
        key = (model, version)
        figures = self._known.get(key)
        if figures is None:
            figures = self._known[key] = VersionFigures()
            if len(self._known) > MOST_VERSIONS:
                self._known.popitem(last=False)
        else:
            self._known.move_to_end(key)
        if status == 200:
            figures.succeeded += 1
            figures.succeeded_seconds += seconds
            figures.instances += instances
        else:
            figures.failed += 1
            figures.failed_seconds += seconds
        figures.last = time.time()

    def of(self, model: str, version: int) -> VersionFigures:
        """The figures of a version; all 0 where nobody asked it."""
        return self._known.get((model, version), NOTHING)
