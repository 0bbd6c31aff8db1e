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
from workers.protocols.body import TEXT, Body, Dialect, dialect_named, restored
from workers.tables import Job

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class JobView:
    """One job at one moment; `result` is the answer's body in the dialect of its request."""

    job: Job
    position: int | None
    result: Body | None

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
    name = jobs.result_name(job.id, job.fence)
    result = artifacts.get_payload(name) if job.result_stored else None
    if result is None and job.state == jobs.JobState.SUCCEEDED:
        kept = jobs.result_of(session, job)
        result = None if kept is None else artifacts.unsealed(name, kept)
    body = None if result is None else restored(result, dialect_named(job.dialect))
    return JobView(job, waiting.position(session, job), body)


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
    """The job as JSON. A result stands in it as it was answered, NaN and Infinity as bare tokens included.

    One that is not all JSON does not: it is told by an address of its own only.
    """
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
    if found.result is None or found.result.head != TEXT:
        return text
    if found.result.dialect != Dialect.TENSORFLOW_SERVING:
        return b'%s, "result": %s}' % (text[:-1], found.result.data)
    # The result's body is an object with one key, `predictions` or `outputs`: it becomes the document's last member.
    return text[:-1] + b", " + found.result.data.strip()[1:-1] + b"}"


def accepted_document(job_id: str, lane: Lane, instances: int) -> bytes:
    """A job that was just committed, as JSON; its place in the queue is told by the job's own address."""
    # As `job_document` writes one, but without a row: to make one took as long as to parse the request.
    return json.dumps(
        {
            "id": job_id,
            "model": lane.model,
            "version": str(lane.version),
            "state": jobs.JobState.QUEUED.value,
            "priority": lane.priority.value,
            "created_at": _time(time.time_ns() // 1_000_000),
            "started_at": None,
            "finished_at": None,
            "attempts": 0,
            "queue_position": None,
            "progress": {"done": 0, "total": instances},
            "error": None,
        }
    ).encode()


def _time(milliseconds: int | None) -> str | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
