"""Canceling a job on somebody's request: its row at once, and after the commit its entry, and those who wait for it."""

from __future__ import annotations

from sqlalchemy.orm import Session
from starlette.background import BackgroundTasks

from gateway.parts import Parts
from workers import jobs
from workers.drafts import NO_LANE
from workers.tables import Job

BY_CLIENT = "its client canceled it"
BY_ADMINISTRATOR = "an administrator canceled it"


def cancel(
    parts: Parts, session: Session, job: Job, afterwards: BackgroundTasks | None = None, *, reason: str = BY_CLIENT
) -> BackgroundTasks | None:
    """Cancel a job, whose error says `reason`; None where it has ended already.

    What is returned, `afterwards` where it is given, is to run after the commit: a Redis that does not answer must not
    keep a transaction open.
    """
    waited = job.state == jobs.JobState.QUEUED and job.lane != NO_LANE
    lane, number, job_id = job.lane, job.number, job.id
    if not jobs.cancel(session, job, reason):
        return None
    afterwards = BackgroundTasks() if afterwards is None else afterwards
    if waited:
        afterwards.add_task(parts.submission.remove_job, lane, number)
    afterwards.add_task(parts.submission.tell_ended, [job_id])
    return afterwards
