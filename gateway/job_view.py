"""Jobs as callers see them: looked up for their own client only, written as a document, waited for."""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.idempotent_submits import Accepted
from gateway.job_results import JobResults, moment
from gateway.queue_outlook import Outlook
from gateway.result_addresses import ResultAddress
from model_store.database import transaction
from model_store.errors import SluiceError
from workers import jobs, waiting
from workers.drafts import FILE
from workers.errors import InputInvalid, JobNotFound
from workers.files.keeping import batch_of
from workers.files.progress import progress_of
from workers.files.tables import Batch
from workers.lanes import Lane
from workers.protocols.body import TEXT, Body, Dialect
from workers.tables import Job

if TYPE_CHECKING:
    from gateway.parts import Parts

ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True)
class JobView:
    """One job at one moment; `result` is the answer's body in the dialect of its request, if it is small."""

    job: Job
    position: int | None
    result: Body | None
    # Where the result does not stand in the document: where it can be read, and until when.
    address: ResultAddress | None = None
    receipt: str | None = None
    outlook: Outlook | None = None
    batch: Batch | None = None

    @property
    def ended(self) -> bool:
        return self.job.state in jobs.FINAL


def find(session: Session, job_id: str, client_id: str) -> Job:
    """The client's job; raises JobNotFound alike for an unknown, a purged and a stranger's id."""
    # Anything else than our ids is asked for as "": PostgreSQL refuses a NUL in a text with an error of its own.
    wanted = job_id if ID.fullmatch(job_id) else ""
    # The chunks of a file are nobody's to see.
    own = select(Job).where(Job.id == wanted, Job.client_id == client_id, Job.parent.is_(None))
    job = session.scalars(own).one_or_none()
    if job is None:
        raise JobNotFound("there is no such job, or not any more")
    return job


def view(session: Session, results: JobResults, job_id: str, client_id: str) -> JobView:
    """Look a job up with its result, or the result's address; raises JobNotFound."""
    return viewed(session, results, find(session, job_id, client_id))


def viewed(session: Session, results: JobResults, job: Job) -> JobView:
    """A job that was looked up, as it is shown."""
    if job.kind == FILE:
        address, receipt = results.file_address(job), results.receipt_if_any(job)
        return JobView(job, None, None, address, receipt, batch=batch_of(session, job.number))
    if job.state != jobs.JobState.SUCCEEDED:
        position = waiting.position(session, job)
        outlook = None if position is None else results.queue.outlook(Lane.parse(job.lane), position - 1)
        return JobView(job, position, None, outlook=outlook)
    body = results.in_row(session, job)
    apart = body is None or body.head != TEXT
    address = results.addresses.make(job.id) if apart else None
    return JobView(job, None, body, address, results.receipt_if_any(job))


async def wait_for_end(parts: Parts, job_id: str, client_id: str, seconds: float) -> JobView:
    """The job once it has ended, or as it is when the time is over; raises JobNotFound, DatabaseUnavailable."""

    def look() -> JobView:
        with transaction(parts.sessions, write=False) as session:
            return view(session, parts.results, job_id, client_id)

    until = time.monotonic() + seconds
    with parts.watch.watching(job_id) as watcher:
        while True:
            found = await parts.watch.looks.take(look)
            left = until - time.monotonic()
            if found.ended or left <= 0:
                return found
            await watcher.wait(left)


async def whole_result(parts: Parts, found: JobView) -> Body | None:
    """The result of a job that succeeded, also a large one: its caller asked for a prediction and waited for it."""
    if found.result is not None or not found.job.result_stored:
        return found.result
    return await asyncio.to_thread(parts.results.stored_body, found.job)


def failure_of(job: Job) -> SluiceError:
    """Why a job has no result, as whoever waits for a prediction is told: 400 where the request was at fault."""
    error = SluiceError(job.error_message or f"the job ended as {job.state}")
    error.code = job.error_code or error.code
    error.status = InputInvalid.status if error.code == InputInvalid.code else 500
    return error


def job_document(found: JobView) -> bytes:
    """The job as JSON. A result stands in it as it was answered, NaN and Infinity as bare tokens included.

    One that is large, or is not all JSON, does not: the document has its address.
    """
    job = found.job
    document = {
        "id": job.id,
        "model": job.model,
        "version": str(job.version),
        "state": job.state,
        "priority": job.priority,
        "created_at": moment(job.created_at),
        "started_at": moment(job.started_at),
        "finished_at": moment(job.finished_at),
        "attempts": job.attempt,
        "queue_position": found.position,
        **_foretold(found.outlook),
        "progress": progress_of(job, found.batch),
        "error": {"code": job.error_code, "message": job.error_message} if job.error_code else None,
        "dead_letter": job.dead,
        "replay_of": job.replay_of,
        "replayed_as": job.replayed_as,
        "receipt": found.receipt,
    }
    if found.address is not None:
        document["result_url"] = found.address.path
        document["result_expires_at"] = moment(found.address.expires_at * 1000)
    text = json.dumps(document).encode()
    if found.result is None or found.result.head != TEXT:
        return text
    if found.result.dialect != Dialect.TENSORFLOW_SERVING:
        return b'%s, "result": %s}' % (text[:-1], found.result.data)
    # The result's body is an object with one key, `predictions` or `outputs`: it becomes the document's last member.
    return text[:-1] + b", " + found.result.data.strip()[1:-1] + b"}"


def accepted_document(accepted: Accepted, lane: Lane, instances: int) -> bytes:
    """A job that was just committed, as JSON; its place in the queue is told by the job's own address."""
    # As `job_document` writes one, but without a row: to make one took as long as to parse the request.
    return json.dumps(
        {
            "id": accepted.id,
            "model": lane.model,
            "version": str(lane.version),
            "state": jobs.JobState.QUEUED.value,
            "priority": lane.priority.value,
            "created_at": moment(accepted.created_at),
            "started_at": None,
            "finished_at": None,
            "attempts": 0,
            "queue_position": None,
            **_foretold(None),
            "progress": {"done": 0, "total": instances},
            "error": None,
            "dead_letter": False,
            "replay_of": None,
            "replayed_as": None,
            "receipt": None,
        }
    ).encode()


def _foretold(outlook: Outlook | None) -> dict[str, object]:
    if outlook is None:
        return {"jobs_ahead": None, "estimated_wait_seconds": None, "estimated_start_at": None}
    wait = outlook.wait_seconds
    return {
        "jobs_ahead": {"own": outlook.ahead.own, "others": round(outlook.ahead.others)},
        "estimated_wait_seconds": None if wait is None else round(wait, 3),
        "estimated_start_at": moment(outlook.starts_at),
    }
