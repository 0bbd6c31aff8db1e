"""Which of a lane's queued jobs lie in its stream: marked as laid out in SQL, and taken back where they were lost."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from model_store.database import now_ms
from workers import lane_counts
from workers.job_statements import LANE_ORDER, QUEUED, in_lane
from workers.tables import Job, LaneCount

BATCHES_AHEAD = 4
LEAST_AHEAD = 64
LOST_ROWS = 1000


def ahead_limit(max_batch: int) -> int:
    """How many jobs may lie in a lane's stream: enough for a drain never to wait, few enough to change one's mind."""
    return max(BATCHES_AHEAD * max_batch, LEAST_AHEAD)


def lay_out(session: Session, lane: str, limit: int) -> list[int]:
    """Mark the lane's oldest waiting jobs as laid out, as many as there is room for; returns their numbers in order."""
    count = session.scalars(select(LaneCount).where(LaneCount.lane == lane).with_for_update()).one_or_none()
    if count is None:
        return []
    room = limit - (count.queued - count.waiting)
    if room <= 0:
        return []
    oldest = (
        select(Job.number)
        .where(
            in_lane(lane),
            Job.dispatched_at.is_(None),
            Job.not_before <= now_ms(),
        )
        .order_by(*LANE_ORDER)
        .limit(room)
        .with_for_update(skip_locked=True)
    )
    numbers = list(session.scalars(oldest))
    if numbers:
        _set_dispatched(session, numbers, now=True)
        lane_counts.change(session, lane, queued=0, waiting=-len(numbers))
    return numbers


def take_back_lost(session: Session, lane: str, before_ms: int) -> int:
    """Jobs of a lane laid out before `before_ms` and still queued wait to be laid out again; returns how many.

    Looks at the oldest few hundred: those are what lies in the lane, and what lies deeper is looked at in its turn.
    """
    oldest = (
        select(Job.number, Job.dispatched_at).where(in_lane(lane)).order_by(*LANE_ORDER).limit(LOST_ROWS).subquery()
    )
    lost = select(oldest.c.number).where(oldest.c.dispatched_at < before_ms)
    numbers = list(
        session.scalars(
            select(Job.number)
            .where(Job.number.in_(lost), QUEUED, Job.dispatched_at < before_ms)
            .with_for_update(skip_locked=True)
        )
    )
    if numbers:
        _set_dispatched(session, numbers, now=False)
        lane_counts.change(session, lane, queued=0, waiting=len(numbers))
    return len(numbers)


def _set_dispatched(session: Session, numbers: Sequence[int], *, now: bool) -> None:
    session.execute(
        update(Job)
        .where(Job.number.in_(numbers))
        .values(dispatched_at=now_ms() if now else None)
        .execution_options(synchronize_session=False)
    )
