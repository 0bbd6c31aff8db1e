"""The lanes that a session reads, and which of them come next: weighted deficit round robin over clients.

Each turn a lane earns credit in predictions and pays for what was read from it (Shreedhar and Varghese 1995,
"Efficient fair queueing using deficit round robin"), so a client that floods its lane waits for the others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from workers.lanes import Keys, Lane, Priority

LANES_A_READ = 64
TURN_PREDICTIONS = 128
DEEPEST_DEBT = 8 * TURN_PREDICTIONS
COOL_SECONDS = 3.0

Version = tuple[str, int]


@dataclass(slots=True)
class HotLane:
    """A lane that was rung and has not been empty for long."""

    lane: Lane
    key: bytes
    cool_at: float
    credit: float = 0.0
    weight: float = 1.0
    per_entry: float = 1.0  # moving average of predictions in an entry
    rings: list[bytes] = field(default_factory=list)  # ids to acknowledge after the lane's first read
    quarantined: bool = False

    @property
    def version(self) -> Version:
        return self.lane.model, self.lane.version


class HotLanes:
    """All hot lanes of a session by their key."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._lanes: dict[bytes, HotLane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def __iter__(self) -> Iterator[HotLane]:
        return iter(list(self._lanes.values()))

    def get(self, key: bytes) -> HotLane | None:
        return self._lanes.get(key)

    def heat(self, name: str) -> tuple[HotLane, bool]:
        """The hot lane of a name and whether it was cold until now; raises ValueError where the name is none."""
        key = self._keys.lane(name)
        known = self._lanes.get(key)
        if known is not None:
            return known, False
        hot = HotLane(Lane.parse(name), key, self._clock() + COOL_SECONDS)
        self._lanes[key] = hot
        return hot, True

    def drop(self, hot: HotLane) -> None:
        self._lanes.pop(hot.key, None)

    def priorities(self) -> set[Priority]:
        return {hot.lane.priority for hot in self._lanes.values()}

    def readable(self, priority: Priority | None, unread: Callable[[HotLane], bool]) -> list[HotLane]:
        """All lanes of a priority but the `unread` ones."""
        return [
            hot
            for hot in self._lanes.values()
            if (priority is None or hot.lane.priority == priority) and not unread(hot)
        ]

    def choose(self, priority: Priority | None, unread: Callable[[HotLane], bool]) -> list[HotLane]:
        """At most 64 lanes to read now, those with most credit first; `unread` ones stay out this turn."""
        candidates = self.readable(priority, unread)
        if len(candidates) <= 1:
            for hot in candidates:
                hot.credit = 0.0  # what a lane read while it was alone, it took from nobody
            return candidates
        solvent = [hot for hot in candidates if hot.credit >= 0]
        if not solvent:
            # Everybody overdrew: give all of them the same time to earn what the least indebted one owes.
            turns = min(-hot.credit / (TURN_PREDICTIONS * hot.weight) for hot in candidates)
            for hot in candidates:
                hot.credit += turns * TURN_PREDICTIONS * hot.weight
            solvent = [hot for hot in candidates if hot.credit >= -1e-9]
        solvent.sort(key=lambda hot: -hot.credit)
        for hot in candidates:
            hot.credit = min(
                hot.credit + TURN_PREDICTIONS * hot.weight / len(candidates), TURN_PREDICTIONS * hot.weight
            )
        return solvent[:LANES_A_READ]

    def count_for(self, chosen: list[HotLane]) -> int:
        """COUNT of a read: entries per lane so that the turn brings about 128 predictions, and at least one."""
        if not chosen:
            return 1
        per_entry = max(hot.per_entry for hot in chosen)
        return max(1, int(TURN_PREDICTIONS / len(chosen) / per_entry))

    def paid(self, hot: HotLane, entries: int, predictions: int) -> None:
        """Note what a read brought."""
        hot.cool_at = self._clock() + COOL_SECONDS
        hot.credit = max(hot.credit - predictions, -DEEPEST_DEBT)
        hot.per_entry = 0.8 * hot.per_entry + 0.2 * (predictions / entries)

    def empty(self, hot: HotLane) -> None:
        """A read found nothing: a lane keeps no credit for the time in which it had nothing to send."""
        hot.credit = min(hot.credit, 0.0)

    def cool(self) -> list[HotLane]:
        """Lanes whose reads have been empty for three seconds are dropped; returns them."""
        now = self._clock()
        cold = [hot for hot in self._lanes.values() if hot.cool_at < now and not hot.rings]
        for hot in cold:
            self.drop(hot)
        return cold
