"""The lanes that a session reads, and which of them come next: weighted deficit round robin over clients.

Each turn a lane earns credit in predictions and pays for what was read from it (Shreedhar and Varghese 1995,
"Efficient fair queueing using deficit round robin"), so a client that floods its lane waits for the others.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from workers.lanes import Keys, Lane, Priority
from workers.redis_link import bulk

# A read names as many lanes as could bring some hundred predictions, and as many as these in any case.
LANES_A_READ = 64
MOST_LANES_A_READ = 512
READ_PREDICTIONS = 512
TURN_PREDICTIONS = 128
DEEPEST_DEBT = 8 * TURN_PREDICTIONS
COOL_SECONDS = 3.0
# A lane is idle after this many reads in a row that found nothing; as few idle ones as this are read with the others.
IDLE_READS = 4
FEW_IDLE = 8

Version = tuple[str, int]
Place = tuple[Version, Priority]
Unread = Callable[["HotLane"], bool]

_CREDIT = attrgetter("credit")
_PER_ENTRY = attrgetter("per_entry")


@dataclass(slots=True, eq=False)
class HotLane:
    """A lane that was rung and has not been empty for long."""

    lane: Lane
    key: bytes
    cool_at: float
    since: float = 0.0  # when it was rung first
    credit: float = 0.0
    weight: float = 1.0
    per_entry: float = 1.0  # moving average of predictions in an entry
    rings: list[bytes] = field(default_factory=list)  # ids to acknowledge after the lane's first read
    quarantined: bool = False
    misses: int = 0  # reads in a row that found nothing
    # Asked for in every turn, so they are made once.
    version: Version = field(init=False)
    place: Place = field(init=False)
    word: bytes = field(init=False)  # the key as it stands in a command

    def __post_init__(self) -> None:
        self.version = (self.lane.model, self.lane.version)
        self.place = (self.version, self.lane.priority)
        self.word = bulk(self.key)


class HotLanes:
    """All hot lanes of a session by their key."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.monotonic) -> None:
        self._keys = keys
        self._clock = clock
        self._lanes: dict[bytes, HotLane] = {}
        self._priorities: Counter[Priority] = Counter()
        self._first_idle = 0
        # What the last turn asked of each lane (entries), what it brought (predictions), and whether any had less.
        self._asked = 0
        self._brought = 0
        self._fell_short = True

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
        now = self._clock()
        hot = HotLane(Lane.parse(name), key, now + COOL_SECONDS, now)
        self._lanes[key] = hot
        self._priorities[hot.lane.priority] += 1
        return hot, True

    def drop(self, hot: HotLane) -> None:
        if self._lanes.pop(hot.key, None) is not None:
            self._priorities[hot.lane.priority] -= 1

    @property
    def mixed(self) -> bool:
        """Whether there are lanes of both priorities."""
        return all(self._priorities[priority] for priority in Priority)

    def readable(self, priority: Priority | None, unread: Unread | None) -> list[HotLane]:
        """All lanes of a priority but the `unread` ones."""
        if priority is None and unread is None:
            return list(self._lanes.values())
        return [
            hot
            for hot in self._lanes.values()
            if (priority is None or hot.lane.priority is priority) and (unread is None or not unread(hot))
        ]

    def choose(self, candidates: Sequence[HotLane]) -> tuple[list[HotLane], list[HotLane]]:
        """The lanes to read now, and idle ones to look at beside them.

        Hundreds of lanes may be hot without work: they have no part in the turns of those that have some, and must not
        leave these a single entry a read. Batches would stay as small as the bundles that they are answered in.
        """
        busy = [hot for hot in candidates if hot.misses < IDLE_READS]
        if len(candidates) - len(busy) <= FEW_IDLE:
            return self._in_turn(candidates), []
        idle = [hot for hot in candidates if hot.misses >= IDLE_READS]
        if len(idle) > MOST_LANES_A_READ:
            start = self._first_idle = (self._first_idle + MOST_LANES_A_READ) % len(idle)
            idle = [*idle[start:], *idle[:start]][:MOST_LANES_A_READ]
        return self._in_turn(busy), idle

    def _in_turn(self, candidates: Sequence[HotLane]) -> list[HotLane]:
        """None that is in debt while others are not, and those with most credit first where they are too many."""
        if len(candidates) <= 1:
            for hot in candidates:
                hot.credit = 0.0  # what a lane read while it was alone, it took from nobody
            return list(candidates)
        solvent = [hot for hot in candidates if hot.credit >= 0]
        if not solvent:
            # Everybody overdrew: give all of them the same time to earn what the least indebted one owes.
            turns = min(-hot.credit / (TURN_PREDICTIONS * hot.weight) for hot in candidates)
            for hot in candidates:
                hot.credit += turns * TURN_PREDICTIONS * hot.weight
            solvent = [hot for hot in candidates if hot.credit >= -1e-9]
        most = most_lanes(candidates)
        if len(solvent) > most:
            solvent.sort(key=_CREDIT, reverse=True)
            del solvent[most:]
        share = self._earned() / (sum(hot.weight for hot in candidates if hot.misses < IDLE_READS) or 1.0)
        for hot in candidates:
            credit, full = hot.credit + share * hot.weight, TURN_PREDICTIONS * hot.weight
            hot.credit = credit if credit < full else full
        _take_what_all_have(candidates)
        return solvent

    def _earned(self) -> float:
        """What all lanes earn together: what the turn before brought, so that each gets its share of what there is.

        Where a lane had less than it might have given, as much as a turn may bring: nobody has to wait for it.
        """
        earned = TURN_PREDICTIONS if self._fell_short or not self._brought else self._brought
        self._brought, self._fell_short = 0, False
        return earned

    def count_for(self, chosen: Sequence[HotLane]) -> int:
        """COUNT of a read: entries per lane so that the turn brings about 128 predictions, and at least one."""
        self._asked = 1
        if chosen and len(chosen) < TURN_PREDICTIONS:
            self._asked = max(1, int(TURN_PREDICTIONS / len(chosen) / max(map(_PER_ENTRY, chosen))))
        return self._asked

    def paid(self, hot: HotLane, entries: int, predictions: int) -> None:
        """Note what a read brought."""
        hot.cool_at = self._clock() + COOL_SECONDS
        hot.misses = 0
        self._brought += predictions
        if entries < self._asked:
            self._fell_short = True
        hot.credit = max(hot.credit - predictions, -DEEPEST_DEBT)
        hot.per_entry = 0.8 * hot.per_entry + 0.2 * (predictions / entries)

    def forgive(self, lanes: Sequence[HotLane]) -> None:
        """The lanes that are not in debt had nothing: what the others read, they took from nobody.

        They may read a turn's predictions before they are in debt again: of hundreds of lanes one may be the only one
        with work, and earns a share of a turn only.
        """
        for hot in lanes:
            if hot.credit < 0.0:
                hot.credit = TURN_PREDICTIONS * hot.weight

    def empty(self, lanes: Sequence[HotLane]) -> None:
        """A read of these found nothing: a lane keeps no credit for the time in which it had nothing to send."""
        for hot in lanes:
            if hot.misses < IDLE_READS:
                self._fell_short = True
            hot.misses += 1
            if hot.credit > 0.0:
                hot.credit = 0.0

    def cool(self) -> list[HotLane]:
        """Lanes whose reads have been empty for three seconds are dropped; returns them."""
        now = self._clock()
        cold = [hot for hot in self._lanes.values() if hot.cool_at < now and not hot.rings]
        for hot in cold:
            self.drop(hot)
        return cold


def _take_what_all_have(candidates: Sequence[HotLane]) -> None:
    """Reads bring whole entries, so a turn may bring less than all earn: once everybody had full credit, all would read
    alike. What every lane with work has is worth nothing; idle lanes have none.
    """
    active = [hot for hot in candidates if not hot.misses]
    spare = min(hot.credit / hot.weight for hot in active) if len(active) > 1 else 0.0
    if spare > 0.0:
        for hot in active:
            hot.credit -= spare * hot.weight


def most_lanes(candidates: Sequence[HotLane]) -> int:
    """How many of these lanes one read may name.

    Every read brings one entry of each lane at least, and nothing else is heard of until what it brought was run.
    """
    if len(candidates) <= LANES_A_READ:
        return LANES_A_READ
    return max(LANES_A_READ, min(MOST_LANES_A_READ, int(READ_PREDICTIONS / max(map(_PER_ENTRY, candidates)))))
