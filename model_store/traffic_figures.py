"""Figures of traffic: counts and histograms of shadows and canaries, added up in SQL over all gateways."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import case, delete, or_, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from model_store.traffic_tables import CanaryRow, FigureRow, ShadowRow

# Four buckets each time that a value doubles: a quantile is off by a tenth at most. From 30 µs to 17 minutes, and
# for differences from 1e-9 to 1e9, beside one for none at all.
PER_DOUBLING = 4
LEAST_BUCKET, MOST_BUCKET = -120, 120
NOTHING_BUCKET = LEAST_BUCKET - 1
PAGE_RUNS = 100


class Measure(StrEnum):
    """What is counted; those in `_seconds` and `difference` are histograms."""

    REQUESTS = "requests"  # answered, by whatever status, or not in time
    ERRORS = "errors"  # of these, with a status from 500 on, or not in time
    SECONDS = "seconds"
    COMPARED = "compared"  # pairs of answers
    AGREED = "agreed"  # of these, by the criterion that the shadow was set with
    WITHIN = "within"  # of these, within the tolerance
    INSTANCES = "instances"  # instances whose largest output could be compared
    TOP1 = "top1"  # of these, with the largest output at the same place
    DIFFERENCE = "difference"  # largest absolute difference of a pair
    UNLIKE = "unlike"  # pairs without such a number: of other shapes or texts, or NaN on one side
    STABLE_SECONDS = "stable_seconds"
    SHADOW_SECONDS = "shadow_seconds"
    FAILED = "failed"  # copies that the shadow answered with an error
    DROPPED = "dropped"  # copies that were not made, or not answered, because too much was going on


_MEASURES = frozenset(measure.value for measure in Measure)


class Key(NamedTuple):
    """Which figure: of a model's version, within a run of a shadow or canary and a stage of that."""

    model: str
    run: int
    stage: int
    version: int
    measure: Measure
    bucket: int = 0


@dataclass(slots=True)
class Figure:
    """How often, and the largest value."""

    count: int = 0
    largest: float = 0.0


@dataclass(slots=True)
class Histogram:
    """Counts by bucket, and the largest value."""

    counts: dict[int, int] = field(default_factory=dict)
    largest: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.counts.values())

    def quantile(self, share: float) -> float | None:
        """The value that so large a share of all does not exceed, a tenth off at most; None of nothing."""
        left = share * self.total
        for bucket, count in sorted(self.counts.items()):
            left -= count
            if left <= 1e-9:
                return min(value_of(bucket), self.largest)
        return None

    def bounds(self) -> list[tuple[float, int]]:
        """The largest value of each bucket that has any, and how many it has."""
        return [(bound_of(bucket), count) for bucket, count in sorted(self.counts.items())]

    def add(self, other: Histogram) -> None:
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        self.largest = max(self.largest, other.largest)


@dataclass(slots=True)
class Figures:
    """All figures of one version within one run: by stage and measure."""

    histograms: dict[tuple[int, Measure], Histogram] = field(default_factory=dict)

    def count(self, measure: Measure, stage: int | None = None) -> int:
        """How often, in one stage or in all of them."""
        return self.histogram(measure, stage).total

    def histogram(self, measure: Measure, stage: int | None = None) -> Histogram:
        """The same as a histogram."""
        found = Histogram()
        for (at, what), histogram in self.histograms.items():
            if what is measure and stage in (None, at):
                found.add(histogram)
        return found


def bucket_of(value: float) -> int:
    """The bucket of a finite value from 0 on."""
    if value <= 0:
        return NOTHING_BUCKET
    return min(MOST_BUCKET, max(LEAST_BUCKET, math.ceil(PER_DOUBLING * math.log2(value))))


def value_of(bucket: int) -> float:
    """The middle of a bucket."""
    return 0.0 if bucket == NOTHING_BUCKET else float(2.0 ** ((bucket - 0.5) / PER_DOUBLING))


def bound_of(bucket: int) -> float:
    """The largest value of a bucket."""
    return 0.0 if bucket == NOTHING_BUCKET else float(2.0 ** (bucket / PER_DOUBLING))


def add_figures(session: Session, figures: Mapping[Key, Figure]) -> None:
    """Adds to what is there, in the order of the keys: two gateways that wrote in different orders would deadlock."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    rows = [
        {**key._asdict(), "measure": key.measure.value, "count": figure.count, "largest": figure.largest}
        for key, figure in sorted(figures.items())
    ]
    if not rows:
        return
    statement = insert(FigureRow)
    new = statement.excluded
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["model", "run", "stage", "version", "measure", "bucket"],
            set_={
                "count": FigureRow.count + new.count,
                "largest": case((new.largest > FigureRow.largest, new.largest), else_=FigureRow.largest),
            },
        ),
        rows,
    )


def read_figures(session: Session, model: str, run: int) -> dict[int, Figures]:
    """The figures of a run by version."""
    found: dict[int, Figures] = {}
    # As plain rows, which cost less than objects of the session: a canary asks for its figures once a second.
    row_of = FigureRow.version, FigureRow.stage, FigureRow.measure, FigureRow.bucket, FigureRow.largest
    wanted = select(*row_of, FigureRow.count.label("times")).where(FigureRow.model == model, FigureRow.run == run)
    for row in session.execute(wanted):
        # Measures that a newer release wrote are left out.
        if row.measure not in _MEASURES:
            continue
        histograms = found.setdefault(row.version, Figures()).histograms
        histogram = histograms.setdefault((row.stage, Measure(row.measure)), Histogram())
        histogram.counts[row.bucket] = row.times
        histogram.largest = max(histogram.largest, row.largest)
    return found


def forget_figures(session: Session) -> int:
    """Deletes figures whose shadow or canary is gone or was set anew: those of a page of runs; returns of how many."""
    shadows = select(ShadowRow.run).where(ShadowRow.model == FigureRow.model, ShadowRow.run == FigureRow.run)
    canaries = select(CanaryRow.run).where(CanaryRow.model == FigureRow.model, CanaryRow.run == FigureRow.run)
    kept = or_(shadows.exists(), canaries.exists())
    runs = session.execute(
        select(FigureRow.model, FigureRow.run).where(~kept).group_by(FigureRow.model, FigureRow.run).limit(PAGE_RUNS)
    ).all()
    for run in runs:
        session.execute(delete(FigureRow).where(FigureRow.model == run.model, FigureRow.run == run.run))
    return len(runs)


def summed(figures: Iterable[Figures]) -> Figures:
    """Those of several versions as one."""
    total = Figures()
    for one in figures:
        for place, histogram in one.histograms.items():
            total.histograms.setdefault(place, Histogram()).add(histogram)
    return total
