"""How long jobs wait: read for callers and for the metrics, never on the way of a prediction."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from model_store.database import now_ms
from workers.jobs import JobState
from workers.tables import Job


def position(session: Session, job: Job, most: int = 1000) -> int | None:
    """How many jobs of the same lane run before this one, plus one; counted up to `most`. None once it runs."""
    if job.state != JobState.QUEUED:
        return None
    ahead = (
        select(Job.id)
        .where(Job.lane == job.lane, Job.state == JobState.QUEUED, Job.sequence < job.sequence)
        .limit(most)
        .subquery()
    )
    return 1 + session.scalar(select(func.count()).select_from(ahead))  # type: ignore[operator] # a count is never None


def oldest(session: Session) -> dict[tuple[str, int], float]:
    """How many seconds the oldest queued job of each model and version has waited, for the metrics."""
    rows = session.execute(
        select(Job.model, Job.version, now_ms() - func.min(Job.created_at))
        .where(Job.state == JobState.QUEUED)
        .group_by(Job.model, Job.version)
    )
    return {(model, version): age / 1000 for model, version, age in rows}
