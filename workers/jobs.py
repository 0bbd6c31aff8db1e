"""The asynchronous job: its states and every legal move, each one conditional write.

    queued ──claim──▶ running ──finish──▶ succeeded | failed
      │  ▲               │
      │  └──put back─────┤  (lease ran out, attempts left)
      ├──cancel──▶ canceled ◀──cancel (a running job's result is dropped by the fence)
      └──expire──▶ expired

A final state never changes. A claim counts up the job's fence, and only the holder of the current fence can write a
result (Kleppmann, "How to do distributed locking"), so a worker that wakes up after its lease does no harm. All
functions work in the caller's transaction and by the database's clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from auth.standing import REASONS, UNKNOWN, Authority, Standing, Withdrawal
from model_store.database import clock_ms, now_ms
from model_store.generation import read_moment
from workers import job_statements as sql
from workers.job_statements import QUEUED, RUNNING
from workers.lane_counts import count_in, count_out
from workers.lanes import Lane
from workers.tables import Job, JobInput, JobResult

LEASE_SECONDS = 9.0
MOST_ATTEMPTS = 3
BACK_OFF_SECONDS = (1, 4, 16)
PAGE_ROWS = 500


class JobState(StrEnum):
    QUEUED = "queued"  # in: accept, put_back; out: claim, cancel, expire
    RUNNING = "running"  # in: claim; out: finish (the fence's holder), put_back and fail (the sweep), cancel
    SUCCEEDED = "succeeded"  # in: finish
    FAILED = "failed"  # in: finish, the sweep after the last attempt
    CANCELED = "canceled"  # in: cancel by its client, or claim where its rights were withdrawn
    EXPIRED = "expired"  # in: the sweep, past its deadline


FINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED)


@dataclass(frozen=True, slots=True)
class Draft:
    """A job that is about to be accepted; its body was checked and, if large, is already in the store."""

    id: str
    lane: Lane
    dialect: str
    instances: int
    input: bytes | None  # None: stored under the id
    job_seconds: float
    authority: Authority = UNKNOWN


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that this worker may run now; `input` is None where the body lies in the store."""

    number: int
    id: str
    fence: int
    attempt: int
    dialect: str
    instances: int
    input: bytes | None


@dataclass(frozen=True, slots=True)
class Ending:
    """What a run of a job came to: an answer's body, or an error's code and message."""

    number: int
    fence: int
    result: bytes | None = None
    result_stored: bool = False
    error_code: str | None = None
    error_message: str | None = None


def new_id() -> str:
    """144 random bits: whoever does not know an id cannot guess one (ASVS 11.5.1)."""
    return secrets.token_urlsafe(18)


def input_name(job_id: str) -> str:
    """Under which name a large input lies in the store."""
    return f"{job_id}.input"


def result_name(job_id: str, fence: int) -> str:
    """Under which name the holder of a fence keeps a large result: one that lost its fence must not replace it."""
    return f"{job_id}.{fence}.result"


def payload_names(job_id: str, fence: int) -> tuple[str, str]:
    """What the store may hold of a job; what a lost attempt left there is swept by its age."""
    return input_name(job_id), result_name(job_id, fence)


def accept(session: Session, drafts: Sequence[Draft], ahead_limit: int) -> list[tuple[Lane, int]]:
    """Write queued jobs, all in one transaction; returns the numbers of those to lay out at once, in order.

    `ahead_limit` is the most jobs that may lie in one lane's stream; the dispatcher lays out the others later.
    """
    connection = session.connection()
    now, numbers = sql.take_numbers(connection, len(drafts))
    inputs = [
        {"job": n, "body": draft.input} for n, draft in zip(numbers, drafts, strict=True) if draft.input is not None
    ]
    if inputs:
        connection.execute(sql.INSERT_INPUT, inputs)
    # Lanes are counted late: until the commit, whoever else counts the same lane has to wait.
    at_once = _count_in(session, drafts, ahead_limit)
    rows = [
        _row(number, draft, now, laid_out=draft.id in at_once) for number, draft in zip(numbers, drafts, strict=True)
    ]
    connection.execute(sql.INSERT, rows)
    return [(draft.lane, number) for number, draft in zip(numbers, drafts, strict=True) if draft.id in at_once]


def claim(
    session: Session, numbers: Collection[int], version: tuple[str, int], worker: str, standing: Standing
) -> list[Claimed]:
    """Take queued jobs of a version for `worker`; what was canceled, expired, taken or forbidden since is left out.

    One statement for the whole batch, so a duplicate delivery costs one query and nothing else.
    """
    model, number = version
    connection = session.connection()
    to_whom = {"of_model": model, "of_version": number, "new_worker": worker, "lease_ms": int(LEASE_SECONDS * 1000)}
    rows = sorted(connection.execute(sql.CLAIM, {**to_whom, "numbers": list(numbers)}), key=lambda row: row.number)
    if not rows:
        return []
    inside = [row.number for row in rows if not row.input_stored]
    inputs = dict(iter(connection.execute(sql.INPUTS, {"numbers": inside}))) if inside else {}
    moment = read_moment(session)
    claimed = []
    for row in rows:
        withdrawal = standing.withdrawn(session, moment, (row.client_id, "submit", model, number, row.grant_id))
        authority = Authority(row.grant_id, row.token_id, row.token_issued_at)
        if withdrawal is None and standing.refuses(session, moment[0], row.client_id, authority):
            withdrawal = Withdrawal.TOKEN_REVOKED
        if withdrawal is None:
            claimed.append(
                Claimed(row.number, row.id, row.fence, row.attempt, row.dialect, row.instances, inputs.get(row.number))
            )
        else:
            _end(session, row.number, JobState.CANCELED, withdrawal.value, REASONS[withdrawal])
    # Last, as in `accept`.
    count_out(session, [(row.lane, row.dispatched_at is None) for row in rows])
    return claimed


def renew(session: Session, numbers: Collection[int], worker: str) -> None:
    """Extend the leases of jobs that `worker` is still running."""
    session.execute(
        update(Job)
        .where(Job.number.in_(numbers), Job.state == JobState.RUNNING, Job.worker == worker)
        .values(lease_until=now_ms() + int(LEASE_SECONDS * 1000))
        .execution_options(synchronize_session=False)
    )


def finish(session: Session, endings: Sequence[Ending]) -> list[int]:
    """Write results; returns the numbers of those that were written, the others lost their fence and are dropped."""
    if not endings:
        return []
    connection = session.connection()
    found = connection.execute(sql.HELD, {"numbers": [ending.number for ending in endings]})
    held = {(number, fence) for number, fence in found}
    mine = [ending for ending in endings if (ending.number, ending.fence) in held]
    if mine:
        connection.execute(sql.FINISH, [_ended(ending) for ending in mine])
    results = [{"job": ending.number, "body": ending.result} for ending in mine if ending.result is not None]
    if results:
        connection.execute(sql.INSERT_RESULT, results)
    return [ending.number for ending in mine]


def put_back(session: Session, numbers: Collection[int], worker: str) -> None:
    """Give back jobs that `worker` claimed but will not run, as when it shuts down; not an attempt."""
    rows = session.scalars(
        select(Job)
        .where(Job.number.in_(numbers), Job.state == JobState.RUNNING, Job.worker == worker)
        .with_for_update()
    ).all()
    for job in sorted(rows, key=_lane):
        _requeue(session, job, back_off_seconds=0, attempt=job.attempt - 1)


def retry(session: Session, claimed: Claimed) -> None:
    """Give back a job whose runner died under it, with back-off; the attempt counts."""
    job = session.scalars(
        select(Job).where(Job.number == claimed.number, Job.fence == claimed.fence).with_for_update()
    ).one_or_none()
    if job is not None:
        _requeue(session, job, back_off_seconds=BACK_OFF_SECONDS[claimed.attempt - 1], attempt=claimed.attempt)


def cancel(session: Session, job: Job) -> bool:
    """Cancel a job that is not final; returns whether this call did. A running one's result will be dropped."""
    # Since it was looked up, a worker may have claimed it, or the sweep put it back: the row says what it is now.
    now = select(Job.state, Job.dispatched_at).where(Job.number == job.number)
    row = session.execute(now.with_for_update()).one_or_none()
    if row is None or row.state in FINAL:
        return False
    session.execute(
        update(Job)
        .where(Job.number == job.number)
        .values(state=JobState.CANCELED.value, finished_at=now_ms(), lease_until=None, error_code="canceled")
        .execution_options(synchronize_session=False)
    )
    if row.state == JobState.QUEUED:
        count_out(session, [(job.lane, row.dispatched_at is None)])
    session.expire(job)
    return True


def overdue(session: Session) -> Sequence[str]:
    """The workers that hold leases which ran out."""
    holders = select(Job.worker).where(RUNNING, Job.lease_until < clock_ms(session)).distinct()
    return [worker for worker in session.scalars(holders) if worker is not None]


def recover(session: Session, alive: Callable[[str], bool]) -> tuple[int, int]:
    """A page of jobs whose lease ran out: back to queued, or failed after the last attempt; returns how many of each.

    A lease that ran out although its worker's heart beats counts as no attempt: the database was slow, not the job bad.
    """
    ran_out = select(Job).where(RUNNING, Job.lease_until < clock_ms(session))
    rows = session.scalars(ran_out.limit(PAGE_ROWS).with_for_update(skip_locked=True)).all()
    back = failed = 0
    for job in sorted(rows, key=_lane):
        attempt = job.attempt - 1 if job.worker is not None and alive(job.worker) else job.attempt
        if attempt >= MOST_ATTEMPTS:
            # A model that kills its worker would come back for ever; three attempts tell a bad job from a bad machine.
            text = f"whatever ran this job died {attempt} times; it was not tried again"
            _end(session, job.number, JobState.FAILED, "worker_crashed", text)
            failed += 1
        else:
            _requeue(session, job, back_off_seconds=BACK_OFF_SECONDS[max(attempt - 1, 0)], attempt=attempt)
            back += 1
    return back, failed


def expire(session: Session) -> int:
    """A page of queued jobs past their deadline ends without running; returns how many."""
    late = select(Job.number, Job.lane, Job.dispatched_at).where(QUEUED, Job.deadline < clock_ms(session))
    rows = session.execute(late.limit(PAGE_ROWS).with_for_update(skip_locked=True)).all()
    for row in rows:
        _end(session, row.number, JobState.EXPIRED, "deadline_passed", "the job's deadline passed before it could run")
    count_out(session, [(row.lane, row.dispatched_at is None) for row in rows])
    return len(rows)


def purge(session: Session, keep_seconds: float) -> tuple[int, list[str]]:
    """Delete a page of jobs that have been final for longer than `keep_seconds`.

    Returns how many, and the names of their payloads in the store.
    """
    rows = session.execute(
        select(Job.number, Job.id, Job.fence, Job.input_stored, Job.result_stored)
        .where(Job.finished_at < clock_ms(session) - int(keep_seconds * 1000), Job.state.in_(FINAL))
        .limit(PAGE_ROWS)
    ).all()
    forget(session, [row.number for row in rows])
    stored = [row for row in rows if row.input_stored or row.result_stored]
    return len(rows), [name for row in stored for name in payload_names(row.id, row.fence)]


def forget(session: Session, numbers: Collection[int]) -> None:
    """Delete jobs with their inputs and results."""
    for column in (JobInput.job, JobResult.job, Job.number):
        session.execute(delete(column.class_).where(column.in_(numbers)).execution_options(synchronize_session=False))


def result_of(session: Session, job: Job) -> bytes | None:
    """The body of a job's answer, where it lies in SQL."""
    return session.scalar(select(JobResult.body).where(JobResult.job == job.number))


def queued_of(session: Session, client_id: str, model: str | None = None) -> int:
    """How many jobs of a client wait; of one model, if it is given."""
    if model is None:
        return session.connection().execute(sql.QUEUED_OF, {"of_client": client_id}).scalar_one()
    asked = {"of_client": client_id, "of_model": model}
    return session.connection().execute(sql.QUEUED_OF_MODEL, asked).scalar_one()


def _count_in(session: Session, drafts: Sequence[Draft], ahead_limit: int) -> set[str]:
    """Count new jobs into their lanes; returns the ids of those that may be laid out at once."""
    by_lane: dict[Lane, list[Draft]] = {}
    for draft in drafts:
        by_lane.setdefault(draft.lane, []).append(draft)
    at_once: set[str] = set()
    # In the order of their names: two gateways that count the same lanes must not wait for each other.
    for lane in sorted(by_lane, key=lambda lane: lane.name):
        mine = by_lane[lane]
        at_once.update(draft.id for draft in mine[: count_in(session, lane, len(mine), ahead_limit)])
    return at_once


def _ended(ending: Ending) -> dict[str, object]:
    return {
        "job": ending.number,
        "held_fence": ending.fence,
        "new_state": (JobState.SUCCEEDED if ending.error_code is None else JobState.FAILED).value,
        "new_result_stored": ending.result_stored,
        "new_error_code": ending.error_code,
        "new_error_message": ending.error_message,
    }


def _row(number: int, draft: Draft, now: int, *, laid_out: bool) -> dict[str, object]:
    lane = draft.lane
    return {
        "number": number,
        "id": draft.id,
        "grant_id": draft.authority.grant,
        "token_id": draft.authority.token_id,
        "token_issued_at": draft.authority.token_issued_at,
        "client_id": lane.client_id,
        "model": lane.model,
        "version": lane.version,
        "priority": lane.priority.value,
        "lane": lane.name,
        "dialect": draft.dialect,
        "state": JobState.QUEUED.value,
        "instances": draft.instances,
        "input_stored": draft.input is None,
        "dispatched_at": now if laid_out else None,
        "created_at": now,
        "deadline": now + int(draft.job_seconds * 1000),
    }


def _end(session: Session, number: int, state: JobState, code: str, message: str) -> None:
    session.execute(
        update(Job)
        .where(Job.number == number, Job.state.not_in(FINAL))
        .values(state=state.value, error_code=code, error_message=message, finished_at=now_ms(), lease_until=None)
        .execution_options(synchronize_session=False)
    )


def _lane(job: Job) -> str:
    # Lanes are counted in the order of their names everywhere: two transactions must not wait for each other.
    return job.lane


def _requeue(session: Session, job: Job, *, back_off_seconds: int, attempt: int) -> None:
    changed = session.execute(
        update(Job)
        .where(Job.number == job.number, Job.fence == job.fence, Job.state == JobState.RUNNING)
        .values(
            state=JobState.QUEUED.value,
            # A later fence shuts out the run that still believes in its lease.
            fence=Job.fence + 1,
            attempt=attempt,
            worker=None,
            dispatched_at=None,
            lease_until=None,
            not_before=now_ms() + back_off_seconds * 1000,
        )
        .execution_options(synchronize_session=False)
    )
    if changed.rowcount:  # type: ignore[attr-defined] # an UPDATE's result knows how many rows it changed
        # The lane may have been forgotten as idle while its last jobs ran.
        count_in(session, Lane.parse(job.lane), 1, ahead_limit=0)
