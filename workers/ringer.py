"""When to ring for a lane, and on which slot.

Whoever writes to a lane rings for it unless it did so within the last second: a gateway for its requests, the
dispatcher for jobs. Who waits, rings: once a second for every lane in which something of its own still waits, each time
on the version's next slot, should the one before not serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from workers.bells import Ring, choose, ring
from workers.lanes import Keys, Lane
from workers.redis_link import Reply, pack
from workers.slots import SLOT_SECONDS

RING_SECONDS = 1.0
RUNG_LANES = 20_000

Weight = Callable[[Lane], float]
"""By which a lane shares the workers with others; asked once for each ring."""


def even(lane: Lane) -> float:  # noqa: ARG001 - a weight is of a lane
    """The weight where nobody knows of grants."""
    return 1.0


@dataclass(slots=True)
class Rung:
    """When a lane was last rung, and how often in a row without an answer."""

    at: float
    attempts: int


class Ringer:
    """Remembers what was rung, and knows the slots of workers that are alive."""

    def __init__(
        self, keys: Keys, pool: str, clock: Callable[[], float] = time.monotonic, weight: Weight = even
    ) -> None:
        self._keys = keys
        self._pool = pool
        self._weight = weight
        self._clock = clock
        self._rung: dict[Lane, Rung] = {}
        self.slots: tuple[str, ...] = ()

    def due(self, lane: Lane) -> Ring | None:
        """A ring for a lane that was just written to; None where one went out within the last second."""
        now = self._clock()
        rung = self._rung.get(lane)
        if rung is None:
            if len(self._rung) >= RUNG_LANES:
                self._rung = {lane: kept for lane, kept in self._rung.items() if now - kept.at < RING_SECONDS}
            rung = self._rung[lane] = Rung(float("-inf"), 0)
        return self._ring(lane, rung, now) if now - rung.at >= RING_SECONDS else None

    def again(self, lanes: Iterable[Lane]) -> list[Ring]:
        """Rings for lanes in which requests have waited for a second: any of what they rely on may have been lost."""
        now, rings = self._clock(), []
        for lane in lanes:
            # A lane may have been forgotten among many others while somebody waits in it.
            rung = self._rung.setdefault(lane, Rung(float("-inf"), 0))
            if now - rung.at >= RING_SECONDS:
                rung.attempts += 1
                new = self._ring(lane, rung, now)
                if new is not None:
                    rings.append(new)
        return rings

    def answered(self, lane: Lane) -> None:
        """The slot that was rung serves: stay with it."""
        rung = self._rung.get(lane)
        if rung is not None:
            rung.attempts = 0

    def question(self) -> list[bytes]:
        """Packed commands that ask for the announced slots; their replies go to `learn`."""
        return [pack("TIME"), pack("ZRANGE", self._keys.slots(self._pool), 0, -1, "WITHSCORES")]

    def learn(self, replies: Sequence[Reply]) -> None:
        """Take note of the slots whose workers announced them within the last three seconds."""
        clock, raw = replies
        if not isinstance(clock, list) or not isinstance(raw, list):
            return
        since = int(clock[0]) + int(clock[1]) / 1e6 - SLOT_SECONDS
        pairs = zip(raw[::2], raw[1::2], strict=True)
        self.slots = tuple(sorted(slot.decode() for slot, score in pairs if float(score) >= since))

    def _ring(self, lane: Lane, rung: Rung, now: float) -> Ring | None:
        slot = choose(self.slots, lane.model, lane.version, rung.attempts)
        if slot is None:
            # No worker is announced; the next look for who waits tries again.
            return None
        rung.at = now
        return ring(self._keys, self._pool, lane.name, slot, self._weight(lane))
