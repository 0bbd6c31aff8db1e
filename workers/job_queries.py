"""Questions that decide about jobs' moves: which leases ran out, which deadlines passed, whose file is gone.

Each asks for a page of rows at most; a move writes under its own condition all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, exists, select
from sqlalchemy.orm import Session, aliased

from model_store.database import clock_ms, now_ms
from workers import job_statements as sql
from workers.drafts import FILE, NO_LANE
from workers.job_statements import LANE_ORDER, QUEUED, RUNNING, in_lane
from workers.tables import Job, JobResult

PAGE_ROWS = 500


def result_of(session: Session, job: Job) -> bytes | None:
    """The body of a job's answer, where it lies in SQL."""
    return session.scalar(select(JobResult.body).where(JobResult.job == job.number))


def queued_of(session: Session, client_id: str, model: str | None = None) -> int:
    """How many jobs of a client wait; of one model, if it is given."""
    if model is None:
        return session.connection().execute(sql.QUEUED_OF, {"of_client": client_id}).scalar_one()
    asked = {"of_client": client_id, "of_model": model}
    return session.connection().execute(sql.QUEUED_OF_MODEL, asked).scalar_one()


def due_files(session: Session, most: int) -> Sequence[int]:
    """The numbers of the oldest queued files that may be claimed now."""
    due = select(Job.number).where(in_lane(NO_LANE), Job.not_before <= now_ms()).order_by(*LANE_ORDER)
    return session.scalars(due.limit(most)).all()


def overdue(session: Session) -> Sequence[str]:
    """The workers that hold leases which ran out."""
    holders = select(Job.worker).where(RUNNING, Job.lease_until < clock_ms(session)).distinct()
    return [worker for worker in session.scalars(holders) if worker is not None]


def lost(session: Session) -> Sequence[int]:
    """Running jobs whose lease ran out; none that somebody is moving right now."""
    ran_out = select(Job.number).where(RUNNING, Job.lease_until < clock_ms(session)).limit(PAGE_ROWS)
    return session.scalars(ran_out.with_for_update(skip_locked=True)).all()


def late(session: Session) -> Sequence[int]:
    """Queued jobs and running files past their deadline; none that somebody is moving right now."""
    now = clock_ms(session)
    queued = select(Job.number).where(QUEUED, Job.deadline < now)
    # A running file's lease is kept alive by its worker: few rows run, and their index is small.
    files = select(Job.number).where(RUNNING, Job.lease_until > 0, Job.kind == FILE, Job.deadline < now)
    pages = (query.limit(PAGE_ROWS).with_for_update(skip_locked=True) for query in (queued, files))
    return [number for page in pages for number in session.scalars(page)]


def orphans(session: Session) -> Sequence[Row[*tuple[Any, ...]]]:
    """Chunks whose file has ended or is gone."""
    chunk, file = aliased(Job), aliased(Job)
    ended = ~exists().where(file.number == chunk.parent, file.state.in_(("queued", "running")))
    found = select(chunk.number, chunk.id, chunk.state, chunk.fence, chunk.input_stored, chunk.result_stored).where(
        chunk.parent.is_not(None), ended
    )
    return session.execute(found.limit(PAGE_ROWS).with_for_update(skip_locked=True, of=chunk)).all()
