"""When a queued job will begin: how many jobs run before it, by the turns that clients' lanes take, and at what rate.

Fluid fair queueing (Parekh and Gallager 1993, "A generalized processor sharing approach to flow control"): while a lane
of weight 1 gives one job, one of weight w gives w of them, until it is empty. All is reckoned from sums that are made
once for a look at the queue, so that a question costs no more where more lanes wait.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from workers.lanes import Lane, Priority

# Of ten turns, bulk lanes have one while interactive ones have work, too (workers/drain.py).
BULK_SHARE = 0.1
# What a measured rate remembers, and how long the guess counts that it begins with.
MEMORY_SECONDS = 4.0
GUESS_SECONDS = 0.25
FAR_OFF = 1.5
# Before anything was measured: what a job costs beside its inference, and how many are claimed at once.
JOB_SECONDS = 0.0003
JOBS_A_BATCH = 64


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """What waits in one lane, and its weight."""

    queued: int
    weight: float


@dataclass(frozen=True, slots=True)
class Ahead:
    """Jobs that run before another one: its own client's and those of others."""

    own: int
    others: float

    @property
    def jobs(self) -> float:
        return self.own + self.others


class Shares:
    """Lanes that share their turns by weight; answers in the logarithm of their number."""

    def __init__(self, lanes: Iterable[LaneLoad]) -> None:
        ordered = sorted(lanes, key=_turns_until_empty)
        self._empty_after = [_turns_until_empty(lane) for lane in ordered]
        self._queued = [0, *itertools.accumulate(lane.queued for lane in ordered)]
        self._weights = [0.0, *itertools.accumulate(lane.weight for lane in ordered)]

    @property
    def jobs(self) -> int:
        """All that wait."""
        return self._queued[-1]

    def served(self, turns: float) -> float:
        """How many jobs leave these lanes while a lane of weight 1 that never empties gives `turns`."""
        emptied = bisect_left(self._empty_after, turns)
        return self._queued[emptied] + turns * (self._weights[-1] - self._weights[emptied])


class VersionQueue:
    """What waits for one version at one moment."""

    def __init__(self, lanes: Mapping[Lane, LaneLoad]) -> None:
        self._lanes = lanes
        self._shares = {
            priority: Shares(load for lane, load in lanes.items() if lane.priority is priority) for priority in Priority
        }

    def queued(self, lane: Lane) -> int:
        """How many jobs wait in a lane."""
        return self._lanes[lane].queued if lane in self._lanes else 0

    def ahead(self, lane: Lane, own: int, weight: float) -> Ahead:
        """What runs before the job of a lane of this weight that has `own` others before it there."""
        alike = self._shares[lane.priority].served(own / weight)
        beside = max(0.0, alike - min(own, self.queued(lane)))
        return Ahead(own, beside + self._of_other_priority(lane.priority, own + beside))

    def _of_other_priority(self, priority: Priority, jobs: float) -> float:
        """How many of the other priority run while `jobs` of this one do."""
        if priority is Priority.INTERACTIVE:
            return min(self._shares[Priority.BULK].jobs, jobs * BULK_SHARE / (1 - BULK_SHARE))
        return min(self._shares[Priority.INTERACTIVE].jobs, jobs * (1 - BULK_SHARE) / BULK_SHARE)


class Rate:
    """Jobs a second that leave a version's queue, over the last seconds in which any waited.

    Where batches are slow, nothing leaves for a while and then many at once: time is counted when something leaves. An
    average forgets slowly what was before another version's work began: after two measurements in a row that are far
    off to the same side, only those count.
    """

    def __init__(self, guess: float) -> None:
        self._seconds = GUESS_SECONDS
        self._jobs = guess * GUESS_SECONDS
        self._measured = False
        self._quiet_seconds = 0.0
        self._gap_seconds = 0.0
        # The last measurement, where it was far off: jobs, seconds, and whether there were more than expected.
        self._odd: tuple[int, float, bool] | None = None

    def observe(self, jobs: int, seconds: float) -> None:
        """So many left in a time at whose beginning some waited."""
        if not jobs:
            self._quiet_seconds += seconds
            return
        if not self._measured:
            # Before the first ones left, the model may have been loaded: for how long they ran, nobody knows.
            self._measured, self._quiet_seconds = True, 0.0
            return
        seconds += self._quiet_seconds
        self._quiet_seconds, self._gap_seconds = 0.0, seconds
        expected = self._jobs / self._seconds * seconds
        more = jobs > expected * FAR_OFF
        odd = (jobs, seconds, more) if more or jobs * FAR_OFF < expected else None
        if odd is not None and self._odd is not None and more == self._odd[2]:
            self._jobs, self._seconds = jobs + self._odd[0], seconds + self._odd[1]
        else:
            kept = math.exp(-seconds / MEMORY_SECONDS)
            self._jobs = self._jobs * kept + jobs
            self._seconds = self._seconds * kept + seconds
        self._odd = odd

    @property
    def jobs_a_second(self) -> float:
        """Less and less where nothing has left for far longer than it took before."""
        usual = max(MEMORY_SECONDS, 2 * self._gap_seconds)
        return self._jobs / self._seconds * usual / max(self._quiet_seconds, usual)


def guessed_rate(batch_seconds: float | None, max_batch: int, slots: int) -> float:
    """Jobs a second of a version that nothing was measured of yet, from the time of its largest batch (seconds)."""
    jobs = min(max_batch, JOBS_A_BATCH)
    return max(1, slots) * jobs / ((batch_seconds or 0.0) * jobs / max_batch + jobs * JOB_SECONDS)


def place_between(number: int, first: int, last: int, jobs: int) -> int:
    """About how many of `jobs`, numbered from `first` to `last`, come before `number`: as if evenly spread."""
    if last <= first:
        return 0
    return max(0, min(jobs, round(jobs * (number - first) / (last - first))))


def _turns_until_empty(lane: LaneLoad) -> float:
    return lane.queued / lane.weight
