"""How long jobs wait: read for callers and for the metrics, never on the way of a prediction."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import ColumnElement, ScalarSelect, func, or_, select, union
from sqlalchemy.orm import Session

from model_store.database import clock_ms, now_ms
from workers.drafts import NO_LANE
from workers.job_statements import LANE_ORDER, RUNNING, in_lane
from workers.jobs import JobState
from workers.lanes import Lane
from workers.queue_estimates import place_between
from workers.tables import Job, LaneCount

# From either end of a lane; beyond, places are reckoned.
COUNTED = 1000


@dataclass(frozen=True, slots=True)
class LaneSeen:
    """A lane at one moment: the jobs that wait in it, and those that ever left it."""

    lane: Lane
    queued: int
    taken: int


def position(session: Session, job: Job, most: int = COUNTED) -> int | None:
    """How many jobs of the same lane run before this one, plus one. None once it runs, and for a file.

    Counted up to `most` from either end of the lane; in the midst of a longer one, about: by the jobs' numbers.
    """
    if job.state != JobState.QUEUED or not job.lane:
        return None
    before = _count(session, in_lane(job.lane), Job.number < job.number, most)
    if before < most:
        return before + 1
    queued = session.scalar(select(LaneCount.queued).where(LaneCount.lane == job.lane)) or 0
    after = _count(session, in_lane(job.lane), Job.number > job.number, most)
    if after < most:
        return max(before + 1, queued - after)
    ends = [_end_of(session, job.lane, last=last) for last in (False, True)]
    return max(before + 1, 1 + place_between(job.number, ends[0], ends[1], queued))


def lanes_seen(session: Session, since_ms: int, most: int) -> tuple[int, list[LaneSeen]]:
    """Lanes in which jobs wait, or did at `since_ms` or later, those with most jobs first; and the database's clock."""
    now = clock_ms(session)
    rows = session.execute(
        select(LaneCount.lane, LaneCount.queued, LaneCount.taken)
        .where(or_(LaneCount.queued > 0, LaneCount.updated_at >= since_ms))
        .order_by(LaneCount.queued.desc())
        .limit(most)
    )
    return now, [LaneSeen(Lane.parse(row.lane), row.queued, row.taken) for row in rows]


def ages(session: Session, lanes: Collection[Lane]) -> dict[Lane, float]:
    """How many seconds the oldest queued job of each of these lanes has waited."""
    rows = session.execute(
        select(LaneCount.lane, now_ms() - _first_created()).where(LaneCount.lane.in_([lane.name for lane in lanes]))
    )
    return {Lane.parse(name): age / 1000 for name, age in rows if age is not None}


def oldest(session: Session) -> dict[tuple[str, int], float]:
    """How many seconds the oldest queued job of each model and version has waited, for the metrics."""
    first = _first_created()
    # One row of the index for each lane, however many jobs wait in it.
    rows = session.execute(
        select(LaneCount.model, LaneCount.version, now_ms() - func.min(first))
        .where(LaneCount.queued > 0)
        .group_by(LaneCount.model, LaneCount.version)
    )
    return {(model, version): age / 1000 for model, version, age in rows if age is not None}


def unfinished(session: Session, model: str, version: int) -> bool:
    """Whether jobs of a version wait or run."""
    queued = select(LaneCount.lane).where(LaneCount.model == model, LaneCount.version == version, LaneCount.queued > 0)
    running = select(Job.number).where(RUNNING, Job.model == model, Job.version == version)
    # Files are in no lane.
    files = select(Job.number).where(in_lane(NO_LANE), Job.model == model, Job.version == version)
    return session.scalar(select(or_(queued.exists(), running.exists(), files.exists()))) is True


def waited_for(session: Session, model: str) -> list[int]:
    """The versions of a model for which jobs wait or run."""
    queued = select(LaneCount.version).where(LaneCount.model == model, LaneCount.queued > 0)
    running = select(Job.version).where(RUNNING, Job.model == model)
    files = select(Job.version).where(in_lane(NO_LANE), Job.model == model)
    return sorted(session.scalars(union(queued, running, files)))


def _first_created() -> ScalarSelect[int]:
    """Of a lane's oldest queued job, in a question about lanes."""
    return select(Job.created_at).where(in_lane(LaneCount.lane)).order_by(*LANE_ORDER).limit(1).scalar_subquery()


def _count(session: Session, lane: ColumnElement[bool], beside: ColumnElement[bool], most: int) -> int:
    found = select(Job.number).where(lane, beside).order_by(*LANE_ORDER).limit(most).subquery()
    return session.scalar(select(func.count()).select_from(found)) or 0


def _end_of(session: Session, lane: str, *, last: bool) -> int:
    """The number of a lane's oldest queued job, or of its youngest."""
    order = [column.desc() for column in LANE_ORDER] if last else LANE_ORDER
    return session.scalar(select(Job.number).where(in_lane(lane)).order_by(*order).limit(1)) or 0
