"""Replaying dead letters: a new job with the same input, since a final state never changes.

Whether it may run is asked when it is claimed, as of any job. The old one remembers what it was replayed as, and the
new one what it replays.
"""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from auth.standing import Authority
from model_store.artifacts import Artifacts
from model_store.errors import ArtifactCorrupt, ArtifactMissing, SluiceError
from workers import jobs
from workers.drafts import PREDICTION
from workers.lanes import Lane
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
    """Accept the job that tries a dead one again; returns its id. The dispatcher lays it out.

    Raises JobNotDead, JobReplayed unless forced, JobInputGone (409), and StoreFull; nothing is written then.
    """
    _require_dead(job)
    if job.replayed_as is not None and not force:
        raise _replayed(job)
    new_id = jobs.new_id()
    # Before the job is marked: where many are replayed in one transaction, one without its input is passed by.
    body = _copied(session, artifacts, job, new_id)
    _mark(session, job, new_id, force=force)
    draft = jobs.Draft(
        id=new_id,
        lane=Lane.parse(job.lane),
        dialect=job.dialect,
        instances=job.instances,
        input=body,
        job_seconds=job_seconds,
        authority=authority,
        max_attempts=job.max_attempts,
        notifies=notifies,
        replay_of=job.id,
        input_digest=job.input_digest,
    )
    jobs.accept(session, [draft], 0)
    return new_id


def _require_dead(job: Job) -> None:
    if not job.dead:
        raise JobNotDead(f"the job is {job.state} and no dead letter: submit it again instead")
    if job.kind != PREDICTION:
        raise JobNotDead(f"this is a job of the kind {job.kind}: submit it again instead")


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
