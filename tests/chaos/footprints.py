"""What processes take: their memory and open files over a run, and the judge of whether they grow without end.

A process that has just started grows in good order: it loads code, fills its caches and opens its connections. So the
first minute of each is left out, and the first half of a run. Of what is left, each process has a slope, the median of
the slopes between all pairs of its samples (Theil and Sen), which single peaks do not move; and each kind of process
the median of its processes' slopes, each of which counts as long as it was watched. Faults end processes all the time:
those that lived too short to be judged are no evidence.
"""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import psutil

from tests.chaos.installation import Installation
from workers.runner.process import ENTRY

SAMPLE_SECONDS = 5.0
WARM_UP_SECONDS = 60.0
# A shorter time says nothing about a slope.
LEAST_SECONDS = 60.0
LEAST_SAMPLES = 8


class Kind(StrEnum):
    GATEWAY = "gateway"
    WORKER = "worker's main process"
    CHILD = "worker's child"
    BACKGROUND = "background worker"
    RUNNER = "runner"


# Bytes a minute, and files a minute. At a hundred jobs a second, a kilobyte that is kept of each is six megabytes.
MEMORY_BOUND = 3_000_000.0
FILES_BOUND = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment: `at` in seconds, `memory` is its resident bytes, `files` its open descriptors."""

    at: float
    kind: Kind
    pid: int
    memory: int
    files: int


@dataclass(frozen=True, slots=True)
class Growth:
    """How one kind of process grew, per minute; over how many processes, and what the largest of them took."""

    kind: Kind
    processes: int
    minutes: float
    memory: float
    files: float
    largest: int

    @property
    def bounded(self) -> bool:
        return self.memory <= MEMORY_BOUND and self.files <= FILES_BOUND


def growths(samples: Sequence[Sample]) -> list[Growth]:
    """How each kind grew of which processes lived long enough, in the second half of the time that was sampled."""
    if not samples:
        return []
    middle = (min(sample.at for sample in samples) + max(sample.at for sample in samples)) / 2
    lives: defaultdict[tuple[Kind, int], list[Sample]] = defaultdict(list)
    for sample in samples:
        lives[sample.kind, sample.pid].append(sample)
    judged: defaultdict[Kind, list[list[Sample]]] = defaultdict(list)
    for (kind, _), life in lives.items():
        begin = max(middle, life[0].at + WARM_UP_SECONDS)
        late = [sample for sample in life if sample.at >= begin]
        if len(late) >= LEAST_SAMPLES and late[-1].at - late[0].at >= LEAST_SECONDS:
            judged[kind].append(late)
    return [_growth(kind, judged[kind]) for kind in Kind if judged[kind]]


def _growth(kind: Kind, lives: Sequence[Sequence[Sample]]) -> Growth:
    minutes = [(life[-1].at - life[0].at) / 60 for life in lives]
    return Growth(
        kind,
        len(lives),
        sum(minutes),
        _weighted_median([slope([(one.at / 60, one.memory) for one in life]) for life in lives], minutes),
        _weighted_median([slope([(one.at / 60, one.files) for one in life]) for life in lives], minutes),
        max(one.memory for life in lives for one in life),
    )


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The median of the slopes between all pairs of points (Theil 1950, Sen 1968)."""
    between = [
        (there[1] - here[1]) / (there[0] - here[0])
        for place, here in enumerate(points)
        for there in points[place + 1 :]
        if there[0] > here[0]
    ]
    return statistics.median(between)


def _weighted_median(values: Sequence[float], weights: Sequence[float]) -> float:
    ordered = sorted(zip(values, weights, strict=True))
    half, passed = sum(weights) / 2, 0.0
    for value, weight in ordered:
        passed += weight
        if passed >= half:
            return value
    return ordered[-1][0]


class Scales(threading.Thread):
    """Weighs every process of an installation now and then."""

    def __init__(self, on: Installation) -> None:
        super().__init__(name="scales", daemon=True)
        self.samples: list[Sample] = []
        self._on = on
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(SAMPLE_SECONDS):
            self.samples += weighed(self._on)

    def close(self) -> None:
        self._ends.set()
        self.join(30)


def weighed(on: Installation) -> Iterable[Sample]:
    """Every process of the installation as it is now."""
    at = time.monotonic()
    found = []
    for name, member in list(on.members.items()):
        if member.process is not None:
            for kind, process in _family(name, member.process.pid):
                # It may end in between.
                with contextlib.suppress(psutil.Error):
                    found.append(Sample(at, kind, process.pid, process.memory_info().rss, process.num_fds()))
    return found


def _family(name: str, pid: int) -> Iterator[tuple[Kind, psutil.Process]]:
    kinds = {"gateway": Kind.GATEWAY, "worker": Kind.WORKER, "background": Kind.BACKGROUND}
    kind = kinds[name.partition("-")[0]]
    with contextlib.suppress(psutil.Error):
        main = psutil.Process(pid)
        yield kind, main
        for child in main.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                yield _kind_of_child(kind, child), child


def _kind_of_child(parent: Kind, child: psutil.Process) -> Kind:
    if ENTRY in child.cmdline():
        return Kind.RUNNER
    return Kind.CHILD if parent is Kind.WORKER else parent
