"""Jobs as callers see them: looked up for their own client only, written as a document, waited for."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.job_watch import LOOK_SECONDS
from gateway.parts import Parts
from model_store.artifacts import Artifacts
from model_store.database import transaction
from workers import jobs, waiting
from workers.errors import JobNotFound
from workers.lanes import Lane
from workers.tables import Job

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class JobView:
    """One job at one moment; `result` is the answer's body in the dialect of its request."""

    job: Job
    position: int | None
    result: bytes | None

    @property
    def ended(self) -> bool:
        return self.job.state in jobs.FINAL


def find(session: Session, job_id: str, client_id: str) -> Job:
    """The client's job; raises JobNotFound alike for an unknown, a purged and a stranger's id."""
    # Anything else than our ids is asked for as "": PostgreSQL refuses a NUL in a text with an error of its own.
    wanted = job_id if ID.fullmatch(job_id) else ""
    job = session.scalars(select(Job).where(Job.id == wanted, Job.client_id == client_id)).one_or_none()
    if job is None:
        raise JobNotFound("there is no such job, or not any more")
    return job


def view(session: Session, artifacts: Artifacts, job_id: str, client_id: str) -> JobView:
    """Look a job up with its result; raises JobNotFound."""
    job = find(session, job_id, client_id)
    result = artifacts.get_payload(jobs.result_name(job.id, job.fence)) if job.result_stored else job.result
    return JobView(job, waiting.position(session, job), result)


async def wait_for_end(parts: Parts, job_id: str, client_id: str, seconds: float) -> JobView:
    """The job once it has ended, or as it is when the time is over; raises JobNotFound, DatabaseUnavailable."""

    def look() -> JobView:
        with transaction(parts.sessions, write=False) as session:
            return view(session, parts.artifacts, job_id, client_id)

    until = time.monotonic() + seconds
    with parts.watch.watching(job_id) as event:
        while True:
            found = await asyncio.to_thread(look)
            left = until - time.monotonic()
            if found.ended or left <= 0:
                return found
            try:
                async with asyncio.timeout(min(LOOK_SECONDS, left)):
                    await event.wait()
            except TimeoutError:
                continue
            event.clear()


def job_document(found: JobView) -> bytes:
    """The job as JSON. A result stands in it as it was answered, NaN and Infinity as bare tokens included."""
    job = found.job
    document = {
        "id": job.id,
        "model": job.model,
        "version": str(job.version),
        "state": job.state,
        "priority": job.priority,
        "created_at": _time(job.created_at),
        "started_at": _time(job.started_at),
        "finished_at": _time(job.finished_at),
        "attempts": job.attempt,
        "queue_position": found.position,
        "progress": {"done": job.instances if job.state == jobs.JobState.SUCCEEDED else 0, "total": job.instances},
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
    }
    text = json.dumps(document).encode()
    if found.result is None:
        return text
    # The result's body is an object with one key, `predictions` or `outputs`: it becomes the document's last member.
    return text[:-1] + b", " + found.result.strip()[1:-1] + b"}"


def accepted_document(job_id: str, lane: Lane, instances: int) -> bytes:
    """A job that was just committed, as JSON; its place in the queue is told by the job's own address."""
    job = Job(
        id=job_id,
        model=lane.model,
        version=lane.version,
        state=jobs.JobState.QUEUED.value,
        priority=lane.priority.value,
        created_at=time.time_ns() // 1_000_000,
        attempt=0,
        instances=instances,
    )
    return job_document(JobView(job, None, None))


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
