"""A file under way: claimed by one background worker under its lease and fence, and how far it is in SQL.

Chunks are jobs whose parent is the file's. They are accepted in the transaction that says how far the file was read,
and forgotten in the one that says how much of the result counts: whoever goes on after a crash finds each row once.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, Update, select, update
from sqlalchemy.orm import Session

from auth import quotas
from auth.limits import EVERYTHING
from auth.standing import Authority
from auth.tables import Client
from model_store.database import clock_ms
from model_store.errors import ArtifactMissing
from model_store.files import Part
from model_store.registry import Served, served
from workers import jobs
from workers.drafts import FILE
from workers.files.contract import Members
from workers.files.keeping import parts_of, parts_text
from workers.files.tables import Batch, File
from workers.job_statements import RUNNING
from workers.lanes import Lane, Priority
from workers.tables import Job, JobInput, JobResult

# Longer than any file is kept.
FOREVER = 10.0 * 365 * 86_400
BodyOf = Callable[[Session, "Waiting"], bytes | None]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file is; with `checkpoint`, the reading goes on behind the youngest chunk."""

    read_rows: int = 0
    written_rows: int = 0
    failed_rows: int = 0
    failed_bytes: int = 0
    whole: bool = False
    checkpoint: Members | None = None


@dataclass(frozen=True, slots=True)
class Under:
    """What a claimed file is read by, as of its claim."""

    number: int
    fence: int
    lane: Lane
    authority: Authority
    deadline: float
    max_attempts: int
    total: int
    format: str
    input_file: str
    output_file: str
    parts: tuple[Part, ...]
    progress: Progress
    served: Served
    endpoint: str | None = None  # of a batch that was made as OpenAI's

    def seconds_left(self) -> float:
        """Until the file's deadline, which is that of its chunks too."""
        return max(0.0, self.deadline - time.monotonic())


@dataclass(frozen=True, slots=True)
class Waiting:
    """A chunk that was accepted, in the order of the file."""

    number: int
    id: str
    fence: int
    state: str
    rows: int
    input_stored: bool
    result_stored: bool
    error_code: str | None
    error_message: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """What one transaction says: what was read and written since the one before."""

    parts: Sequence[Part]
    progress: Progress
    rows_per_second: float | None
    total: int
    collected: Sequence[int]
    drafts: Sequence[jobs.Draft]
    # What the client's quotas are charged besides.
    instances: int = 0


def claim(session: Session, number: int, worker: str, most: int, ended: list[str]) -> jobs.Claimed | None:
    """Take a file that waits, unless `most` of its client are being read already; otherwise as `jobs.claim_file`."""
    waits = Job.number == number, Job.kind == FILE, Job.state == jobs.JobState.QUEUED
    client_id = session.scalar(select(Job.client_id).where(*waits))
    if client_id is None:
        return None
    # Of two that claim files of one client at once, the second counts what the first has claimed. Not locked against
    # those who refer to the client; SQLite has one writer anyway.
    session.execute(select(Client.id).where(Client.id == client_id).with_for_update(key_share=True))
    running = select(Job.number).where(RUNNING, Job.lease_until > 0, Job.kind == FILE, Job.client_id == client_id)
    if len(session.scalars(running.limit(most)).all()) >= most:
        return None
    return jobs.claim_file(session, number, worker, ended)


def under(session: Session, claimed: jobs.Claimed) -> Under:
    """What was just claimed; raises ArtifactMissing where its rows are gone, and what `served` does."""
    job = session.get_one(Job, claimed.number)
    batch = session.get(Batch, claimed.number)
    source = None if batch is None else session.get(File, batch.input_file)
    output = None if batch is None else session.get(File, batch.output_file)
    if batch is None or source is None or output is None:
        raise ArtifactMissing("the file of this job is gone")
    return Under(
        number=job.number,
        fence=claimed.fence,
        lane=Lane(job.model, job.version, Priority.BULK, job.client_id),
        authority=Authority(job.grant_id, job.token_id, job.token_issued_at),
        # By this host's own clock from here on: what counts is the database's, when the chunk is claimed.
        deadline=time.monotonic()
        + (FOREVER if job.deadline is None else job.deadline / 1000 - clock_ms(session) / 1000),
        max_attempts=claimed.max_attempts,
        total=job.instances,
        format=source.format,
        input_file=source.id,
        output_file=output.id,
        parts=tuple(parts_of(output)),
        progress=Progress(
            batch.read_rows,
            batch.written_rows,
            batch.failed_rows,
            batch.failed_bytes,
            batch.whole,
            None if batch.checkpoint is None else json.loads(batch.checkpoint),
        ),
        served=served(session, job.model, job.version),
        endpoint=batch.endpoint,
    )


def chunks_of(session: Session, number: int) -> list[Waiting]:
    """A file's chunks in the order of its rows."""
    columns = (
        Job.number, Job.id, Job.fence, Job.state, Job.instances, Job.input_stored, Job.result_stored,
        Job.error_code, Job.error_message,
    )  # fmt: skip
    rows: Sequence[Row[*tuple[Any, ...]]] = session.execute(
        select(*columns).where(Job.parent == number).order_by(Job.number)
    ).all()
    return [Waiting(*row) for row in rows]


def result_of(session: Session, chunk: Waiting) -> bytes | None:
    """A chunk's answer, where it lies in SQL."""
    return session.scalar(select(JobResult.body).where(JobResult.job == chunk.number))


def input_of(session: Session, chunk: Waiting) -> bytes | None:
    """A chunk's input, where it lies in SQL."""
    return session.scalar(select(JobInput.body).where(JobInput.job == chunk.number))


def advance(session: Session, of: Under, step: Step) -> bool:
    """Write one step; False where the fence was lost, and then nothing of it may be committed."""
    now = step.progress
    total = now.read_rows if now.whole else max(step.total, now.read_rows)
    if not jobs.progress(session, of.number, of.fence, now.written_rows, total):
        return False
    values: dict[str, Any] = {
        "read_rows": now.read_rows,
        "written_rows": now.written_rows,
        "failed_rows": now.failed_rows,
        "failed_bytes": now.failed_bytes,
        "whole": now.whole,
        "checkpoint": None if now.checkpoint is None else json.dumps(now.checkpoint),
        "rows_per_second": step.rows_per_second,
    }
    _set(session, update(Batch).where(Batch.job == of.number).values(values))
    told = {"parts": parts_text(step.parts), "size_bytes": sum(part.size_bytes for part in step.parts)}
    _set(session, update(File).where(File.id == of.output_file).values(told))
    if step.instances:
        used = quotas.Used(step.instances)
        quotas.charge(session, {(of.lane.client_id, model): used for model in (of.lane.model, EVERYTHING)})
    if step.collected:
        jobs.forget(session, step.collected)
    if step.drafts:
        # The dispatcher lays them out: it rings for them as well, and knows how many jobs of the client may run.
        jobs.accept(session, step.drafts, ahead_limit=0)
    return True


def finish(session: Session, of: Under, ending: jobs.Ending) -> bool:
    """The file is done; False where the fence was lost."""
    if not jobs.finish(session, [ending]):
        return False
    _set(session, update(File).where(File.id == of.output_file).values(digest=ending.output_digest))
    return True


def _set(session: Session, change: Update) -> None:
    session.execute(change.execution_options(synchronize_session=False))
