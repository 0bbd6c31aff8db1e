"""Which of a lane's queued jobs lie in its stream: marked as laid out in SQL, and taken back where they were lost."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import case, select, update
from sqlalchemy.orm import Session

from model_store.database import now_ms
from workers import lane_counts
from workers.job_statements import LANE_ORDER, QUEUED, in_lane
from workers.tables import Job, LaneCount

BATCHES_AHEAD = 4
LEAST_AHEAD = 64
LIGHTEST, HEAVIEST = 0.25, 1.75
LOST_ROWS = 1000


def ahead_limit(max_batch: int, weight: float = 1.0) -> int:
    """How many jobs may lie in a lane's stream: enough for a drain never to wait, few enough to change one's mind.

    Of a lane of little weight fewer, but a batch; of one of much weight more, but no more than are ever looked through.
    """
    return max(int(BATCHES_AHEAD * min(max(weight, LIGHTEST), HEAVIEST) * max_batch), LEAST_AHEAD)


def lay_out(session: Session, lane: str, limit: int) -> list[int]:
    """Mark the lane's oldest waiting jobs as laid out, as many as there is room for; returns their numbers in order."""
    return [number for number, _ in lay_out_entries(session, lane, limit)]


def lay_out_entries(session: Session, lane: str, limit: int, most: int | None = None) -> list[tuple[int, int]]:
    """As `lay_out`; with each number, how many predictions a chunk of a file is, and 0 for any other job.

    No more than `most`, if it is given, whatever room there is: what lies there may have been claimed since it was
    asked for, and then it runs.
    """
    count = session.scalars(select(LaneCount).where(LaneCount.lane == lane).with_for_update()).one_or_none()
    if count is None:
        return []
    room = limit - (count.queued - count.waiting)
    if most is not None:
        room = min(room, most)
    if room <= 0:
        return []
    oldest = (
        select(Job.number, case((Job.parent.is_(None), 0), else_=Job.instances))
        .where(
            in_lane(lane),
            Job.dispatched_at.is_(None),
            Job.not_before <= now_ms(),
        )
        .order_by(*LANE_ORDER)
        .limit(room)
        .with_for_update(skip_locked=True)
    )
    found = [(number, size) for number, size in session.execute(oldest)]
    if found:
        _set_dispatched(session, [number for number, _ in found], now=True)
        lane_counts.change(session, lane, queued=0, waiting=-len(found))
    return found


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
