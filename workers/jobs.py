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

import itertools
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, func, insert, or_, select, update
from sqlalchemy.orm import Session

from auth.grants import allows_now
from model_store.database import clock_ms, now_ms
from workers.lane_counts import change, count_in, count_out
from workers.lanes import Lane
from workers.tables import Job, LaneCount

LEASE_SECONDS = 9.0
MOST_ATTEMPTS = 3
BACK_OFF_SECONDS = (1, 4, 16)
SWEEP_ROWS = 500


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


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job that this worker may run now; `input` is None where the body lies in the store."""

    id: str
    model: str
    version: int
    fence: int
    attempt: int
    dialect: str
    instances: int
    input: bytes | None


@dataclass(frozen=True, slots=True)
class Ending:
    """What a run of a job came to: an answer's body, or an error's code and message."""

    id: str
    fence: int
    result: bytes | None = None
    result_stored: bool = False
    error_code: str | None = None
    error_message: str | None = None


_counter = itertools.count()


def new_id() -> str:
    """144 random bits: whoever does not know an id cannot guess one (ASVS 11.5.1)."""
    return secrets.token_urlsafe(18)


def next_sequence() -> int:
    """Grows with time: milliseconds, then a counter for what this process accepts within one."""
    return (time.time_ns() // 1_000_000 << 20) | (next(_counter) & 0xFFFFF)


def accept(session: Session, drafts: Sequence[Draft], ahead_limit: int) -> list[Draft]:
    """Write queued jobs, all in one transaction; returns those to lay out at once, in order.

    `ahead_limit` is the most jobs that may lie in one lane's stream; the dispatcher lays out the others later.
    """
    by_lane: dict[Lane, list[Draft]] = {}
    for draft in drafts:
        by_lane.setdefault(draft.lane, []).append(draft)
    laid_out: list[Draft] = []
    # In the order of their names: two gateways that count the same lanes must not wait for each other.
    for lane in sorted(by_lane, key=lambda lane: lane.name):
        mine = by_lane[lane]
        laid_out += mine[: count_in(session, lane, len(mine), ahead_limit)]
    at_once = {draft.id for draft in laid_out}
    now = clock_ms(session)
    session.execute(insert(Job), [_row(draft, now, laid_out=draft.id in at_once) for draft in drafts])
    return laid_out


def claim(session: Session, ids: Collection[str], worker: str) -> list[Claimed]:
    """Take queued jobs for `worker`; whatever was canceled, expired, taken or forbidden since is left out.

    One statement for the whole batch, so a duplicate delivery costs one query and nothing else.
    """
    rows = session.execute(
        update(Job)
        .where(Job.id.in_(ids), Job.state == JobState.QUEUED, or_(Job.deadline.is_(None), Job.deadline > now_ms()))
        .values(
            state=JobState.RUNNING.value,
            fence=Job.fence + 1,
            attempt=Job.attempt + 1,
            worker=worker,
            started_at=now_ms(),
            lease_until=now_ms() + int(LEASE_SECONDS * 1000),
        )
        .returning(
            Job.id, Job.model, Job.version, Job.fence, Job.attempt, Job.dialect, Job.instances, Job.input,
            Job.client_id, Job.lane, Job.dispatched_at,
        )
        .execution_options(synchronize_session=False)
    ).all()  # fmt: skip
    count_out(session, [(row.lane, row.dispatched_at is None) for row in rows])
    allowed: dict[tuple[str, str, int], bool] = {}
    claimed = []
    for row in rows:
        right = (row.client_id, row.model, row.version)
        if right not in allowed:
            allowed[right] = allows_now(session, row.client_id, "submit", row.model, row.version)
        if allowed[right]:
            claimed.append(Claimed(*row[:8]))
        else:
            _end(session, row.id, JobState.CANCELED, "rights_withdrawn", "the right to this model was withdrawn")
    return claimed


def renew(session: Session, ids: Collection[str], worker: str) -> None:
    """Extend the leases of jobs that `worker` is still running."""
    session.execute(
        update(Job)
        .where(Job.id.in_(ids), Job.state == JobState.RUNNING, Job.worker == worker)
        .values(lease_until=now_ms() + int(LEASE_SECONDS * 1000))
        .execution_options(synchronize_session=False)
    )


def finish(session: Session, endings: Sequence[Ending]) -> list[str]:
    """Write results; returns the ids of those that were written, the others lost their fence and are dropped."""
    written = []
    for ending in endings:
        state = JobState.SUCCEEDED if ending.error_code is None else JobState.FAILED
        changed = session.execute(
            update(Job)
            .where(Job.id == ending.id, Job.fence == ending.fence, Job.state == JobState.RUNNING)
            .values(
                state=state.value,
                result=ending.result,
                result_stored=ending.result_stored,
                error_code=ending.error_code,
                error_message=ending.error_message,
                finished_at=now_ms(),
                lease_until=None,
            )
            .execution_options(synchronize_session=False)
        )
        if changed.rowcount:  # type: ignore[attr-defined] # the stubs type the result of an UPDATE as any Result
            written.append(ending.id)
    return written


def put_back(session: Session, ids: Collection[str], worker: str) -> None:
    """Give back jobs that `worker` claimed but will not run, as when it shuts down; not an attempt."""
    for job in session.scalars(
        select(Job).where(Job.id.in_(ids), Job.state == JobState.RUNNING, Job.worker == worker).with_for_update()
    ):
        _requeue(session, job, back_off_seconds=0, attempt=job.attempt - 1)


def retry(session: Session, claimed: Claimed) -> None:
    """Give back a job whose runner died under it, with back-off; the attempt counts."""
    job = session.scalars(
        select(Job).where(Job.id == claimed.id, Job.fence == claimed.fence).with_for_update()
    ).one_or_none()
    if job is not None:
        _requeue(session, job, back_off_seconds=BACK_OFF_SECONDS[claimed.attempt - 1], attempt=claimed.attempt)


def cancel(session: Session, job: Job) -> bool:
    """Cancel a job that is not final; returns whether this call did. A running one's result will be dropped."""
    was_queued, waiting = job.state == JobState.QUEUED, job.dispatched_at is None
    changed = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.state == job.state, Job.fence == job.fence, Job.state.not_in(FINAL))
        .values(state=JobState.CANCELED.value, finished_at=now_ms(), lease_until=None, error_code="canceled")
        .execution_options(synchronize_session=False)
    )
    done = bool(changed.rowcount)  # type: ignore[attr-defined] # as above
    if done and was_queued:
        count_out(session, [(job.lane, waiting)])
    session.expire(job)
    return done


def recover(session: Session, alive: Callable[[str], bool]) -> tuple[int, int]:
    """Jobs whose lease ran out: back to queued, or failed after the last attempt; returns how many of each.

    A lease that ran out although its worker's heart beats counts as no attempt: the database was slow, not the job bad.
    """
    rows = session.scalars(
        select(Job)
        .where(Job.state == JobState.RUNNING, Job.lease_until < now_ms())
        .limit(SWEEP_ROWS)
        .with_for_update(skip_locked=True)
    ).all()
    back = failed = 0
    for job in rows:
        attempt = job.attempt - 1 if job.worker is not None and alive(job.worker) else job.attempt
        if attempt >= MOST_ATTEMPTS:
            # A model that kills its worker would come back for ever; three attempts tell a bad job from a bad machine.
            text = f"whatever ran this job died {attempt} times; it was not tried again"
            _end(session, job.id, JobState.FAILED, "worker_crashed", text)
            failed += 1
        else:
            _requeue(session, job, back_off_seconds=BACK_OFF_SECONDS[max(attempt - 1, 0)], attempt=attempt)
            back += 1
    return back, failed


def expire(session: Session) -> int:
    """Queued jobs past their deadline end without running; returns how many."""
    rows = session.execute(
        select(Job.id, Job.lane, Job.dispatched_at)
        .where(Job.state == JobState.QUEUED, Job.deadline < now_ms())
        .limit(SWEEP_ROWS)
        .with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        _end(session, row.id, JobState.EXPIRED, "deadline_passed", "the job's deadline passed before it could run")
    count_out(session, [(row.lane, row.dispatched_at is None) for row in rows])
    return len(rows)


def purge(session: Session, keep_seconds: float) -> list[str]:
    """Delete jobs that have been final for longer than `keep_seconds`; returns ids whose payloads lie in the store."""
    rows = session.execute(
        select(Job.id, Job.input_stored, Job.result_stored)
        .where(Job.finished_at < now_ms() - int(keep_seconds * 1000), Job.state.in_(FINAL))
        .limit(SWEEP_ROWS)
    ).all()
    session.execute(
        delete(Job).where(Job.id.in_([row.id for row in rows])).execution_options(synchronize_session=False)
    )
    return [row.id for row in rows if row.input_stored or row.result_stored]


def position(session: Session, job: Job, most: int = 1000) -> int | None:
    """How many jobs of the same lane run before this one, plus one; counted up to `most`. None once it runs."""
    if job.state != JobState.QUEUED:
        return None
    ahead = (
        select(Job.id)
        .where(Job.lane == job.lane, Job.state == JobState.QUEUED, Job.sequence < job.sequence)
        .limit(most)
        .subquery()
    )
    return 1 + session.scalar(select(func.count()).select_from(ahead))  # type: ignore[operator] # a count is never None


def queued_of(session: Session, client_id: str) -> int:
    """How many jobs of a client wait."""
    return (
        session.scalar(select(func.coalesce(func.sum(LaneCount.queued), 0)).where(LaneCount.client_id == client_id))
        or 0
    )


def oldest(session: Session) -> dict[tuple[str, int], float]:
    """How many seconds the oldest queued job of each model and version has waited, for the metrics."""
    rows = session.execute(
        select(Job.model, Job.version, now_ms() - func.min(Job.created_at))
        .where(Job.state == JobState.QUEUED)
        .group_by(Job.model, Job.version)
    )
    return {(model, version): age / 1000 for model, version, age in rows}


def _row(draft: Draft, now: int, *, laid_out: bool) -> dict[str, object]:
    lane = draft.lane
    return {
        "id": draft.id,
        "sequence": next_sequence(),
        "client_id": lane.client_id,
        "model": lane.model,
        "version": lane.version,
        "priority": lane.priority.value,
        "lane": lane.name,
        "dialect": draft.dialect,
        "state": JobState.QUEUED.value,
        "instances": draft.instances,
        "input": draft.input,
        "input_stored": draft.input is None,
        "dispatched_at": now if laid_out else None,
        "created_at": now,
        "deadline": now + int(draft.job_seconds * 1000),
    }


def _end(session: Session, job_id: str, state: JobState, code: str, message: str) -> None:
    session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state.not_in(FINAL))
        .values(state=state.value, error_code=code, error_message=message, finished_at=now_ms(), lease_until=None)
        .execution_options(synchronize_session=False)
    )


def _requeue(session: Session, job: Job, *, back_off_seconds: int, attempt: int) -> None:
    changed = session.execute(
        update(Job)
        .where(Job.id == job.id, Job.fence == job.fence, Job.state == JobState.RUNNING)
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
    if changed.rowcount:  # type: ignore[attr-defined] # as above
        change(session, job.lane, queued=1, waiting=1)
