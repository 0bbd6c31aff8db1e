"""How many jobs each lane has queued and waiting: counted in the transactions that move the jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Executable, Table, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from model_store.database import now_ms
from workers.lanes import Lane
from workers.tables import LaneCount

IDLE_SECONDS = 3600


def count_in(session: Session, lane: Lane, jobs: int, ahead_limit: int) -> int:
    """Count new jobs into a lane and return how many of them may be laid out at once.

    At most `ahead_limit` jobs lie in a lane's stream; none is laid out ahead of an older one that still waits.
    """
    connection = session.connection()
    values = {"lane": lane.name, "client_id": lane.client_id, "model": lane.model, "version": lane.version}
    row = connection.execute(_COUNT_IN[connection.dialect.name], {**values, "queued": jobs, "waiting": 0}).one()
    laid_out_before = row.queued - jobs - row.waiting
    now = 0 if row.waiting else max(0, min(jobs, ahead_limit - laid_out_before))
    if now < jobs:
        change(session, lane.name, queued=0, waiting=jobs - now)
    return now


def count_out(session: Session, left: Sequence[tuple[str, bool]]) -> None:
    """Count jobs that left `queued`: pairs of lane name and whether the job was still waiting to be laid out."""
    queued = Counter(lane for lane, _ in left)
    waiting = Counter(lane for lane, was_waiting in left if was_waiting)
    # In the order of their names: two transactions that count the same lanes must not wait for each other.
    for lane in sorted(queued):
        change(session, lane, queued=-queued[lane], waiting=-waiting[lane], taken=queued[lane])


def change(session: Session, lane: str, *, queued: int, waiting: int, taken: int = 0) -> None:
    counted = {"of_lane": lane, "more_queued": queued, "more_waiting": waiting, "more_taken": taken}
    session.connection().execute(_CHANGE, counted)


def laid_out(session: Session, *, most: int, after: str = "") -> Sequence[LaneCount]:
    """Lanes in which jobs should lie, in the order of their names; `after` is the last name of the page before."""
    query = select(LaneCount).where(LaneCount.queued > LaneCount.waiting, LaneCount.lane > after)
    return session.scalars(query.order_by(LaneCount.lane).limit(most)).all()


def to_lay_out(session: Session, *, most: int, after: tuple[int, str]) -> Sequence[LaneCount]:
    """Lanes with jobs that wait to be laid out, those that changed longest ago first.

    `after` is when the last one of the page before changed, and its name.
    """
    place = tuple_(LaneCount.updated_at, LaneCount.lane)
    query = select(LaneCount).where(LaneCount.waiting > 0, place > after)
    return session.scalars(query.order_by(LaneCount.updated_at, LaneCount.lane).limit(most)).all()


def depths(session: Session) -> list[tuple[str, int, int]]:
    """Queued jobs by model and version, for the metrics."""
    total = func.sum(LaneCount.queued)
    rows = session.execute(
        select(LaneCount.model, LaneCount.version, total).group_by(LaneCount.model, LaneCount.version)
    )
    return [(model, version, int(count)) for model, version, count in rows]


def forget_idle(session: Session) -> None:
    """Drop lanes that have been empty for an hour."""
    session.execute(
        delete(LaneCount)
        .where(LaneCount.queued == 0, LaneCount.updated_at < now_ms() - IDLE_SECONDS * 1000)
        .execution_options(synchronize_session=False)
    )


def _count_in(insert: Callable[..., Any]) -> Executable:
    new = insert(_LANES)
    more = {"queued": LaneCount.queued + new.excluded.queued, "updated_at": now_ms()}
    counted: Executable = new.on_conflict_do_update(index_elements=["lane"], set_=more).returning(
        LaneCount.queued, LaneCount.waiting
    )
    return counted


# Written once, as those of workers/jobs.py: every group of jobs passes through them.
_LANES: Table = LaneCount.__table__  # type: ignore[assignment] # a declarative class's table is a Table
_COUNT_IN = {"sqlite": _count_in(sqlite.insert), "postgresql": _count_in(postgresql.insert)}
_CHANGE = (
    update(_LANES)
    .where(LaneCount.lane == bindparam("of_lane"))
    .values(
        queued=LaneCount.queued + bindparam("more_queued"),
        waiting=LaneCount.waiting + bindparam("more_waiting"),
        taken=LaneCount.taken + bindparam("more_taken"),
        updated_at=now_ms(),
    )
)
