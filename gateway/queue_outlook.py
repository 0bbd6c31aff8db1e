"""The queue as this gateway last saw it: what a job has before it, and when it will begin.

A task looks twice a second, at lanes in which jobs wait; every question is answered from memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.snapshot import Snapshot
from gateway.submission import Submission
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable
from workers import waiting
from workers.lanes import Lane
from workers.queue_estimates import Ahead, LaneLoad, Rate, VersionQueue, guessed_rate
from workers.waiting import LaneSeen

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
# Those with most jobs are looked at where there are more; the oldest job is looked up of fewer.
MOST_LANES = 5000
MOST_AGED_LANES = 500
# Beyond a year an estimate says nothing.
LONGEST_SECONDS = 365 * 86_400.0

Version = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a job has before it, and when it will begin: in so many seconds, at that moment of the database's clock.

    Both are None where that cannot be foretold.
    """

    ahead: Ahead
    wait_seconds: float | None
    starts_at: int | None  # milliseconds since 1970


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the queue: by version what waits, by lane how many seconds its oldest job has waited."""

    at: float = 0.0
    queues: Mapping[Version, VersionQueue] = field(default_factory=dict)
    ages: Mapping[Lane, float] = field(default_factory=dict)
    taken: Mapping[Lane, int] = field(default_factory=dict)  # jobs that ever left a lane
    moment: int = 0  # of the database's clock, in milliseconds


class QueueOutlook:
    """Questions may come from any thread: what they look at is replaced as a whole. One look is taken at a time."""

    def __init__(self, sessions: Sessions, snapshot: Snapshot, submission: Submission) -> None:
        self._sessions = sessions
        self._snapshot = snapshot
        self._submission = submission
        self._look = Look()
        self._rates: dict[Version, Rate] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep_looking())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def outlook(self, lane: Lane, own: int) -> Outlook:
        """Of the job of a lane that has `own` others of it before itself."""
        version = (lane.model, lane.version)
        queue = self._look.queues.get(version, _EMPTY)
        ahead = queue.ahead(lane, own, self._snapshot.weight(lane))
        rate = self._rates.get(version)
        wait = _wait(ahead, self._guess(version) if rate is None else rate.jobs_a_second)
        return Outlook(ahead, wait, None if wait is None else self._snapshot.now_ms() + round(wait * 1000))

    def joining(self, lane: Lane) -> Outlook:
        """Of a job that is submitted to a lane now."""
        return self.outlook(lane, self._look.queues.get((lane.model, lane.version), _EMPTY).queued(lane))

    def age(self, lane: Lane) -> float:
        """How many seconds the lane's oldest job had waited; 0 where nothing waits or the model has no such policy."""
        return self._look.ages.get(lane, 0.0)

    async def look(self) -> None:
        """Look once; raises DatabaseUnavailable."""
        before = self._look
        look = await asyncio.to_thread(self._take, before)
        self._measure(before, look)
        self._look = look

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except DatabaseUnavailable:
                continue  # the snapshot says so already, and more often
            except Exception:  # the task's edge: every estimate would stand still for ever
                log.exception("the queue could not be looked at")

    def _take(self, before: Look) -> Look:
        with transaction(self._sessions, write=False) as session:
            moment, seen = waiting.lanes_seen(session, before.moment, MOST_LANES)
            aged = [one for one in seen if one.queued and self._has_bound(one.lane)][:MOST_AGED_LANES]
            ages = waiting.ages(session, [one.lane for one in aged]) if aged else {}
        return Look(time.monotonic(), self._queues(seen), ages, {one.lane: one.taken for one in seen}, moment)

    def _queues(self, seen: Sequence[LaneSeen]) -> dict[Version, VersionQueue]:
        loads: dict[Version, dict[Lane, LaneLoad]] = {}
        for one in seen:
            if one.queued:
                load = LaneLoad(one.queued, self._snapshot.weight(one.lane))
                loads.setdefault((one.lane.model, one.lane.version), {})[one.lane] = load
        return {version: VersionQueue(lanes) for version, lanes in loads.items()}

    def _has_bound(self, lane: Lane) -> bool:
        model = self._snapshot.catalog.models.get(lane.model)
        return model is not None and model.policy.queue_seconds is not None

    def _measure(self, before: Look, look: Look) -> None:
        """Take note of what left the versions for which jobs waited; forget models that are gone."""
        left: Counter[Version] = Counter()
        for lane, taken in look.taken.items():
            left[lane.model, lane.version] += max(0, taken - before.taken.get(lane, taken))
        for version in before.queues:
            rate = self._rates.get(version)
            if rate is None:
                rate = self._rates[version] = Rate(self._guess(version))
            seconds = look.at - before.at
            # A queue that was emptied in between says only how fast it is at least; one that nobody serves, nothing.
            served = version in look.queues and (left[version] or self._submission.slots_of(version[0]))
            if served or left[version] > rate.jobs_a_second * seconds:
                rate.observe(left[version], seconds)
        models = self._snapshot.catalog.models
        for version in [(name, number) for name, number in self._rates if name not in models]:
            del self._rates[version]

    def _guess(self, version: Version) -> float:
        model = self._snapshot.catalog.models.get(version[0])
        known = None if model is None else model.versions.get(version[1])
        if known is None:
            return guessed_rate(None, 1, 1)
        slots = min(known.max_parallelism, len(self._submission.slots_of(version[0])))
        return guessed_rate(known.batch_seconds, known.max_batch, slots)


_EMPTY = VersionQueue({})


def _wait(ahead: Ahead, jobs_a_second: float) -> float | None:
    if jobs_a_second * LONGEST_SECONDS <= ahead.jobs:
        return None
    return ahead.jobs / jobs_a_second
