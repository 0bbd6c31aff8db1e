"""Failed attempts to authenticate, counted for a while, so that guessing is slowed down."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable

from auth.errors import FailuresTooMany

Source = tuple[str, str]


class Failures:
    """Counts failures by address and name together: nobody can lock a good client out from somewhere else.

    In this process and bounded; at most `capacity` sources are remembered, the oldest leave first.
    """

    def __init__(
        self,
        *,
        allowed: int = 10,
        window_seconds: float = 60.0,
        capacity: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._allowed = allowed
        self._window_seconds = window_seconds
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        self._counts: dict[Source, tuple[int, float]] = {}  # failures, and the moment at which they are forgotten

    def require_few(self, address: str, name: str) -> None:
        """Raises FailuresTooMany, with the seconds to wait, where the source has used up what is allowed."""
        count, until = self._counts.get(source_of(address, name), (0, 0.0))
        left = until - self._clock()
        if count >= self._allowed and left > 0:
            raise FailuresTooMany(
                "too many failed attempts; wait before the next one", retry_after_seconds=math.ceil(left)
            )

    def count(self, address: str, name: str) -> None:
        """One more failure; the window begins with the first."""
        source, now = source_of(address, name), self._clock()
        with self._lock:
            count, until = self._counts.pop(source, (0, 0.0))
            if until <= now:
                count, until = 0, now + self._window_seconds
            while len(self._counts) >= self._capacity:
                del self._counts[next(iter(self._counts))]
            self._counts[source] = (count + 1, until)

    def forget(self, address: str, name: str) -> None:
        """A success clears the source."""
        with self._lock:
            self._counts.pop(source_of(address, name), None)


def source_of(address: str, name: str) -> Source:
    """What counts as one source of attempts: an address, or a whole network of IPv6, with a name."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64], name[:128]
    if parsed.version == 6:
        # A household has 2^64 addresses: they are one source.
        return str(ipaddress.IPv6Network((int(parsed), 64), strict=False)), name[:128]
    return str(parsed), name[:128]
