"""Redis's clock, by which entries are dated: one clock judges all deadlines, and says how long an entry waited."""

from __future__ import annotations

import time
from collections.abc import Sequence

from workers.redis_link import Wire, pack

LOOK_SECONDS = 10.0
# Ids of entries have whole milliseconds, rounded down.
ROUNDED_OFF_MS = 0.5


class RedisClock:
    """Asked for every ten seconds, and reckoned in between; one thread looks, any may ask."""

    def __init__(self) -> None:
        self._skew_ms: float | None = None
        self._looked_at = float("-inf")

    def now_ms(self, wire: Wire) -> float:
        """Milliseconds since 1970; looks where that is due. Raises redis.RedisError."""
        now = time.monotonic()
        if self._skew_ms is None or now - self._looked_at > LOOK_SECONDS:
            seconds, microseconds = wire.execute([pack("TIME")])[0]
            self._skew_ms = int(seconds) * 1000 + int(microseconds) / 1000 - now * 1000
            self._looked_at = now
        return now * 1000 + self._skew_ms

    def waited_ns(self, since_ms: Sequence[int], until: float) -> int:
        """How many nanoseconds it was, all together, from entries with these dates to a moment of the monotonic clock.

        Right on average. 0 while the clock was never looked at.
        """
        if self._skew_ms is None:
            return 0
        now_ms = until * 1000 + self._skew_ms - ROUNDED_OFF_MS
        return max(0, round((now_ms * len(since_ms) - sum(since_ms)) * 1_000_000))
