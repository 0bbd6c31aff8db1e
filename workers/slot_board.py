"""The slots that are announced, pool by pool, and what they have loaded, as whoever rings knows them.

Asked for once a second. What is loaded is read from a few slots at a time, so that a look costs the same however many
there are: of sixteen slots every second, of a hundred every seven.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from workers.lanes import Keys
from workers.loaded_versions import question, versions_of
from workers.redis_link import Reply, pack
from workers.slots import MOST_ANNOUNCED, SLOT_SECONDS

LOADED_A_LOOK = 16
# Of pools that workers are in and no model names.
MOST_POOLS = 32
# A worker that is restarted is away for a moment; whoever waits meanwhile is answered by the next one.
DESERTED_SECONDS = 10.0


class SlotBoard:
    """Replies have to be learned before the next question is asked."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._asked: tuple[str, ...] = ()
        self._announced: tuple[str, ...] = ()
        self._read: list[tuple[str, str]] = []
        self._next = 0
        self._by_pool: dict[str, tuple[str, ...]] = {}
        self._loaded: dict[str, dict[str, frozenset[bytes]]] = {}
        self._empty_since: dict[str, float] = {}

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(itertools.chain.from_iterable(self._by_pool.values()))

    @property
    def by_pool(self) -> Mapping[str, tuple[str, ...]]:
        return self._by_pool

    def of(self, pool: str) -> tuple[str, ...]:
        return self._by_pool.get(pool, ())

    def loaded(self, pool: str) -> Mapping[str, frozenset[bytes]]:
        """What slots of the pool have loaded, as far as they were asked."""
        return self._loaded.get(pool, {})

    def deserted(self, pool: str) -> bool:
        """Whether no worker of the pool has been seen for ten seconds."""
        since = self._empty_since.get(pool)
        return since is not None and self._clock() - since >= DESERTED_SECONDS

    def question(self, pools: Collection[str]) -> list[bytes]:
        """Packed commands: the time, the pools that there are, the slots of each, and what some slots have loaded.

        `pools` are those that models name; workers of others are looked for too, for whoever lists them.
        """
        self._asked = tuple(sorted({*pools, *self._announced[:MOST_POOLS]}))
        places = [(pool, slot) for pool in self._asked for slot in self.of(pool)]
        start = self._next if self._next < len(places) else 0
        self._read = places[start : start + LOADED_A_LOOK]
        self._next = start + LOADED_A_LOOK
        last = MOST_ANNOUNCED - 1
        ranges = [pack("ZREVRANGE", self._keys.slots(pool), 0, last, "WITHSCORES") for pool in self._asked]
        pools_there_are = pack("ZREVRANGE", self._keys.pools(), 0, last)
        return [pack("TIME"), pools_there_are, *ranges, *(question(self._keys, *place) for place in self._read)]

    def learn(self, replies: Sequence[Reply]) -> None:
        """Take note of the slots whose workers announced them within the last three seconds."""
        clock, announced, *rest = replies
        ranges, told = rest[: len(self._asked)], rest[len(self._asked) :]
        if (
            not isinstance(clock, list)
            or not isinstance(announced, list)
            or not all(isinstance(raw, list) for raw in ranges)
        ):
            return
        self._announced = tuple(sorted(pool.decode(errors="replace") for pool in announced))
        since = int(clock[0]) + int(clock[1]) / 1e6 - SLOT_SECONDS
        self._by_pool = {pool: _fresh(raw, since) for pool, raw in zip(self._asked, ranges, strict=True)}
        now = self._clock()
        empty = [pool for pool, slots in self._by_pool.items() if not slots]
        self._empty_since = {pool: self._empty_since.get(pool, now) for pool in empty}
        for (pool, slot), reply in zip(self._read, told, strict=False):
            self._loaded.setdefault(pool, {})[slot] = versions_of(reply)
        self._loaded = {
            pool: {slot: versions for slot, versions in known.items() if slot in self.of(pool)}
            for pool, known in self._loaded.items()
            if pool in self._by_pool
        }


def _fresh(raw: Sequence[bytes], since: float) -> tuple[str, ...]:
    pairs = zip(raw[::2], raw[1::2], strict=True)
    return tuple(sorted(slot.decode(errors="replace") for slot, score in pairs if float(score) >= since))
