"""How fast a file is read: the last seconds count most."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

AVERAGED_SECONDS = 10.0
LEAST_SECONDS = 0.5


class Rate:
    """Rows per second, averaged with weights that fade over ten seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = clock()
        self._rows = 0
        self.rows_per_second: float | None = None

    def add(self, rows: int) -> None:
        """Rows that were done since the last call."""
        self._rows += rows
        seconds = self._clock() - self._since
        if seconds < LEAST_SECONDS:
            return
        now = self._rows / seconds
        kept = math.exp(-seconds / AVERAGED_SECONDS)
        before = self.rows_per_second
        self.rows_per_second = now if before is None else kept * before + (1 - kept) * now
        self._since, self._rows = self._clock(), 0
