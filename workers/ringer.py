"""When to ring for a lane, and on which slot.

Whoever writes to a lane rings for it unless it did so within the last second: a gateway for its requests, the
dispatcher for jobs. Who waits, rings: once a second for every lane in which something of its own still waits, each time
on the version's next slot, should the one before not serve.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from workers.bells import Ring, choose, ring
from workers.lanes import Keys, Lane
from workers.pools import Pools
from workers.redis_link import Reply
from workers.slot_board import SlotBoard

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
    """Remembers what was rung, and knows the slots of workers that are alive and what they have loaded."""

    def __init__(
        self, keys: Keys, pools: Pools, clock: Callable[[], float] = time.monotonic, weight: Weight = even
    ) -> None:
        self._keys = keys
        self._pools = pools
        self._weight = weight
        self._clock = clock
        self._rung: dict[Lane, Rung] = {}
        self._board = SlotBoard(keys, clock)

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots of all pools that serve some model."""
        return self._board.all

    @property
    def by_pool(self) -> Mapping[str, tuple[str, ...]]:
        """The slots of each pool that serves some model."""
        return self._board.by_pool

    def slots_of(self, model: str) -> tuple[str, ...]:
        """The slots of the pool that serves a model."""
        return self._board.of(self._pools.of(model))

    def deserted(self, lane: Lane) -> str | None:
        """The pool that alone may serve a lane's model, where it has had no worker for a while; else None.

        The ordinary pool is never called so: whoever waits for it may see its worker come back.
        """
        pool = self._pools.of(lane.model)
        return pool if pool != self._pools.ordinary and self._board.deserted(pool) else None

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
        return self._board.question(self._pools.named)

    def learn(self, replies: Sequence[Reply]) -> None:
        """Take note of the slots whose workers announced them within the last three seconds."""
        self._board.learn(replies)

    def _ring(self, lane: Lane, rung: Rung, now: float) -> Ring | None:
        pool = self._pools.of(lane.model)
        slot = choose(self._board.of(pool), lane.model, lane.version, rung.attempts, self._board.loaded(pool))
        if slot is None:
            # No worker is announced; the next look for who waits tries again.
            return None
        rung.at = now
        return ring(self._keys, pool, lane.name, slot, self._weight(lane))
