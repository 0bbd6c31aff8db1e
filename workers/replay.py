"""Replaying dead letters: a new job with the same input, since a final state never changes.

Whether it may run is asked when it is claimed, as of any job. The old one remembers what it was replayed as, and the
new one what it replays.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from auth.standing import Authority
from model_store.artifacts import Artifacts
from model_store.database import clock_ms
from model_store.errors import ArtifactCorrupt, ArtifactMissing, SluiceError
from model_store.files import open_file
from workers import jobs
from workers.drafts import CHUNK, FILE, PREDICTION
from workers.files.keeping import add_batch, batch_of, held_file
from workers.files.tables import Batch
from workers.lanes import Lane, Priority
from workers.payloads import input_name
from workers.tables import Job, JobInput


class JobNotDead(SluiceError):
    """Only what failed by no fault of its own may end otherwise when it is tried again."""

    status = 409
    code = "job_not_dead"


class JobReplayed(SluiceError):
    """It was replayed before: whoever wants two answers has to say so."""

    status = 409
    code = "job_replayed"


class JobInputGone(SluiceError):
    status = 409
    code = "job_input_gone"


def authority_of(job: Job) -> Authority:
    """By what a job was let in."""
    return Authority(job.grant_id, job.token_id, job.token_issued_at)


def replay(
    session: Session,
    artifacts: Artifacts,
    job: Job,
    *,
    authority: Authority,
    job_seconds: float,
    notifies: bool = False,
    force: bool = False,
) -> str:
    """Accept the job that tries a dead one again; returns its id. The dispatcher lays it out, or has its file read.

    A file is read again from its first row; it is the same file, and not copied. Raises JobNotDead, JobReplayed unless
    forced, JobInputGone (409), and StoreFull; nothing is written then.
    """
    require_dead(job)
    if job.replayed_as is not None and not force:
        raise _replayed(job)
    new_id = jobs.new_id()
    # Before the job is marked: where many are replayed in one transaction, one without its input is passed by.
    body, batch = None, None
    if job.kind == FILE:
        batch = _same_file(session, artifacts, job)
    else:
        body = _copied(session, artifacts, job, new_id)
    _mark(session, job, new_id, force=force)
    draft = jobs.Draft(
        id=new_id,
        lane=Lane(job.model, job.version, Priority(job.priority), job.client_id),
        dialect=job.dialect,
        instances=job.instances,
        input=body,
        job_seconds=job_seconds,
        authority=authority,
        kind=FILE if batch is not None else PREDICTION,
        max_attempts=job.max_attempts,
        notifies=notifies,
        replay_of=job.id,
        input_digest=job.input_digest,
    )
    jobs.accept(session, [draft], 0)
    if batch is not None:
        add_batch(session, session.scalars(select(Job).where(Job.id == new_id)).one(), batch)
    return new_id


def require_dead(job: Job) -> None:
    """Raises JobNotDead for what may not be replayed."""
    if not job.dead:
        raise JobNotDead(f"the job is {job.state} and no dead letter: submit it again instead")
    if job.kind == CHUNK:
        raise JobNotDead("this is a part of a file's job: replay that instead")


def _mark(session: Session, job: Job, new_id: str, *, force: bool) -> None:
    """Of two that replay a job at once, one does."""
    again = update(Job).where(Job.number == job.number)
    if not force:
        again = again.where(Job.replayed_as.is_(None))
    marked = session.execute(again.values(replayed_as=new_id).execution_options(synchronize_session=False))
    if not marked.rowcount:  # type: ignore[attr-defined] # an UPDATE's result knows how many rows it changed
        raise _replayed(job)


def _replayed(job: Job) -> JobReplayed:
    return JobReplayed(f"the job was replayed as {job.replayed_as or 'another'} already; force it to do so again")


def _same_file(session: Session, artifacts: Artifacts, job: Job) -> Batch:
    """What reads the job's file once more. The old job keeps it, or leaves it to the new one when it is deleted."""
    batch = batch_of(session, job.number)
    source = None if batch is None else held_file(session, batch.input_file)
    try:
        if batch is None or source is None or source.expires_at < clock_ms(session):
            raise JobInputGone("the job's file is not there any more: upload it again")
        open_file(artifacts, source.id).close()
    except ArtifactMissing:
        raise JobInputGone("the job's file is not in the store any more: upload it again") from None
    except ArtifactCorrupt as error:
        raise JobInputGone("the job's file is damaged and cannot be read: upload it again") from error
    return Batch(input_file=source.id, owns_input=False, endpoint=batch.endpoint, notes=batch.notes)


def _copied(session: Session, artifacts: Artifacts, job: Job, new_id: str) -> bytes | None:
    """The input under its new name; None where it lies in the store."""
    old, new = input_name(job.id), input_name(new_id)
    try:
        if job.input_stored:
            # Should the transaction fail, no row names it, and the sweep takes it.
            artifacts.put_payload(new, artifacts.get_payload(old))
            return None
        body = session.scalar(select(JobInput.body).where(JobInput.job == job.number))
        if body is None:
            raise JobInputGone("the job's input is not there any more")
        return artifacts.sealed(new, artifacts.unsealed(old, body))
    except ArtifactMissing:
        raise JobInputGone("the job's input is not in the store any more") from None
    except ArtifactCorrupt as error:
        raise JobInputGone("the job's input is damaged: it cannot be read any more") from error
