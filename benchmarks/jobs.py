"""Asynchronous jobs as the database sees them: how many are in which state, and how fast they ended."""

from __future__ import annotations

import time
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from benchmarks.failures import BenchmarkFailed
from benchmarks.system import System
from model_store.database import clock_ms, transaction
from workers.tables import Job

# Each look reads all rows, and takes from the processors that drain.
LOOK_SECONDS = 0.5
SUCCEEDED = "succeeded"
UNFINISHED = ("queued", "running")


@dataclass(frozen=True, slots=True)
class Drained:
    """How jobs ended; rates are of results committed, by the database's clock."""

    succeeded: int
    per_second: float
    first_per_second: float
    last_per_second: float


def clock(system: System) -> int:
    """The database's own time in milliseconds, by which all times of jobs are written."""
    with transaction(system.sessions, write=False) as session:
        return clock_ms(session)


def by_state(system: System, since: int = 0) -> dict[str, int]:
    """How many jobs there are in each state, of those that came since a moment of the database's clock."""
    counted = select(Job.state, func.count()).where(Job.created_at >= since).group_by(Job.state)
    with transaction(system.sessions, write=False) as session:
        rows = session.execute(counted).all()
    return {str(state): int(count) for state, count in rows}


def wait_until_ended(system: System, seconds: float, since: int = 0) -> dict[str, int]:
    """Wait until none is queued or running; returns how many there are in each state. Raises BenchmarkFailed."""
    until = time.monotonic() + seconds
    while any(name in (found := by_state(system, since)) for name in UNFINISHED):
        if time.monotonic() > until:
            raise BenchmarkFailed(f"after {seconds:g} seconds jobs are {found}")
        time.sleep(LOOK_SECONDS)
    return found


def drained(system: System, since: int) -> Drained:
    """Of the jobs that came since then: from the first start to the last end, and in the first and last fifths."""
    with transaction(system.sessions, write=False) as session:
        ours = Job.created_at >= since
        started = session.scalar(select(func.min(Job.started_at)).where(ours))
        count = session.scalar(select(func.count()).where(Job.state == SUCCEEDED, ours)) or 0
        if started is None or not count:
            raise BenchmarkFailed("no job has succeeded")
        fifth = max(1, count // 5)
        ends = [_end(session, place, since) for place in (fifth, count - fifth, count)]
    first, last_but, last = ends
    return Drained(
        succeeded=count,
        per_second=count / _seconds(started, last),
        first_per_second=fifth / _seconds(started, first),
        last_per_second=fifth / _seconds(last_but, last),
    )


def _end(session: Session, place: int, since: int) -> int:
    """When the job ended that was this one to end, in milliseconds."""
    ended = (
        select(Job.finished_at).where(Job.finished_at.is_not(None), Job.created_at >= since).order_by(Job.finished_at)
    )
    return int(session.scalar(ended.offset(place - 1).limit(1)) or 0)


def _seconds(start: int, end: int) -> float:
    # The clock ticks in milliseconds.
    return max(end - start, 1) / 1000
