"""Jobs that are to leave nothing behind: canceled, forgotten, and taken out of wherever their parts may lie.

Rows go with the transaction; entries in Redis and files in the store afterwards: should the commit fail, the job is
still there and needs its input. What a worker still writes for such a job it deletes itself, once it finds that the job
is not its own any more.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy.orm import Session
from starlette.background import BackgroundTasks

from gateway.cancellations import cancel
from gateway.parts import Parts
from workers import jobs
from workers.erasure import delete_stored, erase
from workers.tables import Job

# Of a request that deletes many: as much as one transaction may hold others up.
PAGE_JOBS = 500


def remove(
    parts: Parts, session: Session, found: Collection[Job], tasks: BackgroundTasks | None = None
) -> BackgroundTasks:
    """Cancel those of these jobs that have not ended, and forget all of them.

    What remains to be done after the commit is added to `tasks`, or to new ones, and returned.
    """
    afterwards = BackgroundTasks() if tasks is None else tasks
    cancellations = BackgroundTasks()
    numbers = [job.number for job in found]
    # In the order of their lanes: two transactions that count the same ones must not wait for each other.
    for job in sorted(found, key=lambda job: (job.lane, job.number)):
        if job.state not in jobs.FINAL:
            cancel(parts, session, job, cancellations)
    # Before what Redis is told of each: should that not answer, contents would lie there for as long.
    afterwards.add_task(delete_stored, parts.artifacts, erase(session, numbers, untold=True))
    afterwards.tasks += cancellations.tasks
    return afterwards
