"""What one thread does again after a while, each thing at its own interval."""

from __future__ import annotations

import time


class Intervals:
    """When each thing, by its name, is due again; for one thread."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def due(self, name: str, seconds: float) -> bool:
        """Whether it is due, which it is the first time; if so, it is again in so many seconds."""
        now = time.monotonic()
        if now < self._due.get(name, 0.0):
            return False
        self._due[name] = now + seconds
        return True

    def at_once(self, name: str) -> None:
        """It is due again already: the last time did not do all of it."""
        self._due.pop(name, None)
