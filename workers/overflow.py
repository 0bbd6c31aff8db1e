"""Help for a lane that one slot cannot empty: the version's next slots are rung, as many as it may use at once."""

from __future__ import annotations

import time
from collections.abc import Callable

import redis

from workers.bells import ring
from workers.hot_lanes import HotLane
from workers.lanes import Keys
from workers.publisher import Publisher
from workers.redis_link import Wire
from workers.slots import announced, ranked

RING_SECONDS = 1.0
SLOTS_SECONDS = 2.0
LANES_REMEMBERED = 1000


class Overflow:
    """Rings other slots for lanes whose reads come back full, at most once a second for each lane."""

    def __init__(
        self, client: redis.Redis, keys: Keys, place: tuple[str, str], publisher: Publisher, wire: Wire
    ) -> None:
        self._client = client
        self._keys = keys
        self._pool, self._slot = place
        self._publisher = publisher
        self._wire = wire
        self._rung_at: dict[bytes, float] = {}
        self._slots: tuple[str, ...] = ()
        self._slots_at = float("-inf")

    def full(self, hot: HotLane, max_parallelism: int, clock: Callable[[], float] = time.monotonic) -> None:
        """A read of `hot` came back full: ring the other slots that the version may use; raises redis.RedisError."""
        now = clock()
        if max_parallelism < 2 or now - self._rung_at.get(hot.key, float("-inf")) < RING_SECONDS:
            return
        if len(self._rung_at) >= LANES_REMEMBERED:
            self._rung_at.clear()
        self._rung_at[hot.key] = now
        if now - self._slots_at > SLOTS_SECONDS:
            self._slots, self._slots_at = announced(self._client, self._keys, self._pool), now
        for slot in helpers(hot, self._slots, self._slot, max_parallelism):
            new = ring(self._keys, self._pool, hot.lane.name, slot, hot.weight)
            if new.started(self._wire.execute(new.commands)):
                self._publisher.drain(self._pool, slot, new.token)


def helpers(hot: HotLane, slots: tuple[str, ...], own: str, max_parallelism: int) -> list[str]:
    """The slots beside `own` among the version's first `max_parallelism`."""
    order = ranked(f"{hot.lane.model}:{hot.lane.version}", slots)
    return [slot for slot in order if slot != own][: max_parallelism - 1]
