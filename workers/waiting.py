"""How long jobs wait: read for callers and for the metrics, never on the way of a prediction."""

from __future__ import annotations

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from model_store.database import now_ms
from workers.job_statements import LANE_ORDER, RUNNING, in_lane
from workers.jobs import JobState
from workers.tables import Job, LaneCount


def position(session: Session, job: Job, most: int = 1000) -> int | None:
    """How many jobs of the same lane run before this one, plus one; counted up to `most`. None once it runs."""
    if job.state != JobState.QUEUED:
        return None
    waiting = select(Job.number).where(in_lane(job.lane), Job.number < job.number).order_by(*LANE_ORDER)
    ahead = waiting.limit(most).subquery()
    return 1 + session.scalar(select(func.count()).select_from(ahead))  # type: ignore[operator] # a count is never None


def oldest(session: Session) -> dict[tuple[str, int], float]:
    """How many seconds the oldest queued job of each model and version has waited, for the metrics."""
    first = select(Job.created_at).where(in_lane(LaneCount.lane)).order_by(*LANE_ORDER).limit(1).scalar_subquery()
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
    return session.scalar(select(or_(queued.exists(), running.exists()))) is True
