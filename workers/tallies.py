"""What was counted of each version's predictions since it was last told: by a worker's process, or by a gateway's.

Semantics are those of Triton's statistics extension (docs/protocol/extension_statistics.md of its server): an execution
is one inference of a batch, and what a batch takes counts for every request in it.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields

Version = tuple[str, int]

# While nothing can be told, what further versions count is lost.
MOST_VERSIONS = 2000
AT_ONCE: AbstractContextManager[object] = nullcontext()


@dataclass(slots=True)
class BatchTally:
    """Executions of one batch size, and the nanoseconds that they took."""

    count: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0


@dataclass(slots=True)
class Tally:
    """One version. Counts of requests stand in front of the nanoseconds that those took together.

    `succeeded` and `failed` are requests and jobs by how they ended, from their first byte to their answer; `queued`
    and `computed` those that a worker answered. `instances` are those of `executions`, of which `batches` says how many
    there were of each size. `last_ms` is when the last request ended, in milliseconds since 1970; 0 before it.
    """

    succeeded: int = 0
    succeeded_ns: int = 0
    failed: int = 0
    failed_ns: int = 0
    queued: int = 0
    queue_ns: int = 0
    computed: int = 0
    input_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    instances: int = 0
    executions: int = 0
    last_ms: int = 0
    batches: dict[int, BatchTally] = field(default_factory=dict)

    def batch(self, size: int) -> BatchTally:
        """The executions of one size."""
        found = self.batches.get(size)
        if found is None:
            found = self.batches[size] = BatchTally()
        return found

    def add(self, other: Tally) -> None:
        """What another one counted of the same version."""
        for name in SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.last_ms = max(self.last_ms, other.last_ms)
        for size, counted in other.batches.items():
            mine = self.batch(size)
            for name in BATCH_SUMS:
                setattr(mine, name, getattr(mine, name) + getattr(counted, name))


SUMS = tuple(one.name for one in fields(Tally) if one.name not in ("last_ms", "batches"))
BATCH_SUMS = tuple(one.name for one in fields(BatchTally))


@dataclass(slots=True)
class Course:
    """How requests that share their inferences went; times in nanoseconds.

    `turn` is held during each inference; until they had it, they waited `turn_ns`, and `waited_ns` before that, once
    they were read. `answered` says how many of them succeeded, and `runs` are instances and time of each inference.
    """

    turn: AbstractContextManager[object] = AT_ONCE
    input_ns: int = 0
    waited_ns: int = 0
    turn_ns: int = 0
    infer_ns: int = 0
    output_ns: int = 0
    answered: int = 0
    instances: int = 0
    runs: list[tuple[int, int]] = field(default_factory=list)

    def ran(self, turn_ns: int, infer_ns: int, instances: int) -> None:
        """An inference, for whose turn they waited so long."""
        self.turn_ns += turn_ns
        self.infer_ns += infer_ns
        self.instances += instances
        self.runs.append((instances, infer_ns))


class Tallies:
    """Those of one process, safe for several threads; what is taken out is told, or given back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[Version, Tally] = {}

    def ran(self, version: Version, course: Course) -> None:
        """Inferences, and those requests among theirs that succeeded."""
        if not course.runs:
            return
        with self._lock:
            tally = self._of(version)
            tally.executions += len(course.runs)
            tally.instances += course.instances
            for size, infer_ns in course.runs:
                batch = tally.batch(size)
                batch.count += 1
                batch.infer_ns += infer_ns
                batch.input_ns += course.input_ns * size // course.instances
                batch.output_ns += course.output_ns * size // course.instances
            answered = course.answered
            tally.computed += answered
            tally.queue_ns += answered * (course.waited_ns + course.turn_ns)
            tally.input_ns += answered * course.input_ns
            tally.infer_ns += answered * course.infer_ns
            tally.output_ns += answered * course.output_ns

    def waited(self, version: Version, requests: int, nanoseconds: int) -> None:
        """Requests that a worker answered, and how long all of them together had waited for it."""
        if requests:
            with self._lock:
                tally = self._of(version)
                tally.queued += requests
                tally.queue_ns += nanoseconds

    def ended(self, version: Version, *, succeeded: bool, nanoseconds: int) -> None:
        """A request or a job, from its first byte to its answer."""
        with self._lock:
            tally = self._of(version)
            if succeeded:
                tally.succeeded += 1
                tally.succeeded_ns += nanoseconds
            else:
                tally.failed += 1
                tally.failed_ns += nanoseconds
            tally.last_ms = time.time_ns() // 1_000_000

    def takes(self, most: int) -> int:
        """How often so many have to be taken for all that is counted by now: while predictions go on, there is always
        more."""
        return math.ceil(len(self._tallies) / most)

    def take(self, most: int) -> dict[Version, Tally]:
        """Take out what was counted of some versions, those first whose turn it is."""
        with self._lock:
            taken = list(self._tallies)[:most]
            return {version: self._tallies.pop(version) for version in taken}

    def give_back(self, tallies: Mapping[Version, Tally]) -> None:
        """What could not be told counts on."""
        with self._lock:
            for version, tally in tallies.items():
                self._of(version).add(tally)

    def _of(self, version: Version) -> Tally:
        tally = self._tallies.get(version)
        if tally is None:
            tally = Tally()
            if len(self._tallies) < MOST_VERSIONS:
                self._tallies[version] = tally
        return tally
