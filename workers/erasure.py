"""Leaving nothing of a job: its row, input, result and chunks, its files, and what its webhooks have still to tell."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, or_, select
from sqlalchemy.orm import Session

from model_store.artifacts import Artifacts
from model_store.files import delete_file
from workers import jobs
from workers.drafts import FILE
from workers.files.keeping import forget_batch
from workers.payloads import payload_names
from workers.tables import Job
from workers.webhooks import deliveries as webhook_deliveries


@dataclass(frozen=True, slots=True)
class Erased:
    """What the store may hold of jobs whose rows are gone: names of payloads and of files."""

    payloads: Sequence[str]
    files: Sequence[str]


def erase(session: Session, numbers: Collection[int], *, untold: bool) -> Erased:
    """Delete everything in SQL of jobs that have ended, or were canceled just now; `untold` also what webhooks have
    still to tell of them. What is returned is to be deleted after the commit."""
    rows = _with_chunks(session, numbers)
    files = [name for row in rows if row.kind == FILE for name in forget_batch(session, row.number, row.fence)]
    if untold:
        webhook_deliveries.forget_jobs(session, [row.id for row in rows])
    jobs.forget(session, [row.number for row in rows])
    stored = [row for row in rows if untold or row.input_stored or row.result_stored]
    return Erased([name for row in stored for name in payload_names(row.id, row.fence)], files)


def delete_stored(artifacts: Artifacts, erased: Erased) -> None:
    """Delete the files; they may be gone already."""
    for name in erased.payloads:
        artifacts.delete_payload(name)
    for name in erased.files:
        delete_file(artifacts, name)


def _with_chunks(session: Session, numbers: Collection[int]) -> Sequence[Row[*tuple[Any, ...]]]:
    # Read here and not before: until it was canceled, a worker may have claimed a job, under a later fence.
    found = select(Job.number, Job.id, Job.kind, Job.fence, Job.input_stored, Job.result_stored)
    return session.execute(found.where(or_(Job.number.in_(numbers), Job.parent.in_(numbers)))).all()
