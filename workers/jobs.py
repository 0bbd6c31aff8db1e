"""The asynchronous job: its states and every legal move, each one conditional write.

    queued ──claim──▶ running ──finish──▶ succeeded | failed
      │  ▲               │
      │  └──put back─────┤  (given back, tried again, or the lease ran out with attempts left)
      ├──cancel──▶ canceled ◀──cancel (a running job's result is dropped by the fence)
      └──expire──▶ expired ◀──expire (a running file only)

A final state never changes. A claim counts up the job's fence, and only the holder of the current fence can write a
result (Kleppmann, "How to do distributed locking"), so a worker that wakes up after its lease does no harm. All
functions work in the caller's transaction and by the database's clock. Whoever ends jobs tells their ids on Redis's
channel once the transaction is committed; the webhooks of those that have one are noted within it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, UpdateBase, delete
from sqlalchemy.orm import Session

from auth.standing import REASONS, Authority, Standing, Withdrawal
from model_store.generation import read_moment
from workers import job_statements as sql
from workers.attempts import MOST_ATTEMPTS
from workers.drafts import FILE, NO_LANE, Claimed, Draft, Ending, new_id
from workers.job_queries import PAGE_ROWS, due_files, late, lost, orphans, overdue, queued_of, result_of
from workers.lane_counts import count_in, count_out
from workers.lanes import Lane
from workers.payloads import input_name, payload_names, result_name
from workers.tables import Job, JobInput, JobResult
from workers.webhooks import outbox as webhook_outbox

__all__ = [
    "FINAL", "LEASE_MILLISECONDS", "LEASE_SECONDS", "MOST_ATTEMPTS", "PAGE_ROWS", "Claimed", "Draft", "Ending",
    "JobState", "accept", "accept_at", "cancel", "claim", "claim_file", "due_files", "end_orphans", "expire", "finish",
    "forget", "input_name", "new_id", "overdue", "payload_names", "progress", "put_back", "queued_of", "recover",
    "renew", "result_name", "result_of", "retry",
]  # fmt: skip

LEASE_SECONDS = 9.0
LEASE_MILLISECONDS = int(LEASE_SECONDS * 1000)


class JobState(StrEnum):
    """Beside each: the moves in and out, and who makes them. The last four are final: nothing leads out."""

    # In: accept (a gateway), put_back and retry (its worker), recover (the sweep).
    # Out: claim and claim_file (a worker), cancel (its client, an operator), expire and end_orphans (the sweep).
    QUEUED = "queued"
    # In: claim, claim_file. Out: finish, put_back, retry (the holder), recover (the sweep), cancel, end_orphans; a
    # file's also expire.
    RUNNING = "running"
    # In: finish (the fence's holder).
    SUCCEEDED = "succeeded"
    # In: finish (the fence's holder), recover after the last attempt (the sweep).
    FAILED = "failed"
    # In: cancel, claim and claim_file where the right was withdrawn, end_orphans; a chunk's also any end of its file.
    CANCELED = "canceled"
    # In: expire (the sweep), past its deadline.
    EXPIRED = "expired"


FINAL = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELED, JobState.EXPIRED)


def accept(session: Session, drafts: Sequence[Draft], ahead_limit: int) -> list[tuple[Lane, int]]:
    """Write queued jobs, all in one transaction; returns the numbers of those to lay out at once, in order.

    `ahead_limit` is the most jobs that may lie in one lane's stream; the dispatcher lays out the others later.
    """
    return accept_at(session, drafts, ahead_limit)[1]


def accept_at(session: Session, drafts: Sequence[Draft], ahead_limit: int) -> tuple[int, list[tuple[Lane, int]]]:
    """As `accept`, with the moment that the rows have, in milliseconds since 1970."""
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
        draft.row(number, now, JobState.QUEUED, laid_out=draft.id in at_once)
        for number, draft in zip(numbers, drafts, strict=True)
    ]
    connection.execute(sql.INSERT, rows)
    return now, [(draft.lane, number) for number, draft in zip(numbers, drafts, strict=True) if draft.id in at_once]


def claim(
    session: Session,
    numbers: Collection[int],
    version: tuple[str, int],
    worker: str,
    standing: Standing,
    ended: list[str] | None = None,
) -> list[Claimed]:
    """Take queued jobs of a version for `worker`; what was canceled, expired, taken or forbidden since is left out.

    One statement for the whole batch, so a duplicate delivery costs one query and nothing else. Ids of jobs that are
    canceled here, since the right to run them was withdrawn, are added to `ended`.
    """
    model, number = version
    taken = {"numbers": list(numbers), "of_model": model, "of_version": number}
    rows = sorted(session.connection().execute(sql.CLAIM, taken | _lease(worker)), key=lambda row: row.number)
    claimed = _permitted(session, rows, standing, ended)
    # Last, as in `accept`.
    count_out(session, [(row.lane, row.dispatched_at is None) for row in rows])
    return claimed


def claim_file(session: Session, number: int, worker: str, ended: list[str] | None = None) -> Claimed | None:
    """Take a queued file for `worker`; None where it is taken, not due or has ended. `ended` as in `claim`."""
    rows = session.connection().execute(sql.CLAIM_FILE, {"of_number": number} | _lease(worker)).all()
    return next(iter(_permitted(session, rows, Standing(), ended)), None)


def renew(
    session: Session, numbers: Collection[int], worker: str, done: Mapping[int, int] | None = None
) -> frozenset[int]:
    """Extend the leases of jobs that `worker` is still running; returns those that it still holds.

    `done` says of some of them how many instances are done.
    """
    connection = session.connection()
    held = connection.execute(
        sql.RENEW, {"numbers": list(numbers), "of_worker": worker, "lease_ms": LEASE_MILLISECONDS}
    )
    mine = frozenset(held.scalars())
    if done:
        rows = [{"job": number, "of_worker": worker, "now_done": count} for number, count in sorted(done.items())]
        connection.execute(sql.SHOW_DONE, rows)
    return mine


def progress(session: Session, number: int, fence: int, done: int, instances: int) -> bool:
    """Say how far a job is, and extend its lease; returns False where the fence was lost, as when it was canceled."""
    values = {"of_number": number, "held_fence": fence, "now_done": done, "new_instances": instances}
    return session.connection().execute(sql.PROGRESS, values | {"lease_ms": LEASE_MILLISECONDS}).first() is not None


def finish(session: Session, endings: Sequence[Ending]) -> list[int]:
    """Write results; returns the numbers of those that were written, the others lost their fence and are dropped."""
    if not endings:
        return []
    connection = session.connection()
    found = connection.execute(sql.HELD, {"numbers": [ending.number for ending in endings]}).all()
    held = {(row.number, row.fence) for row in found}
    mine = [ending for ending in endings if (ending.number, ending.fence) in held]
    if mine:
        connection.execute(
            sql.FINISH, [ending.row(JobState.FAILED if ending.failed else JobState.SUCCEEDED) for ending in mine]
        )
    results = [{"job": ending.number, "body": ending.result} for ending in mine if ending.result is not None]
    if results:
        connection.execute(sql.INSERT_RESULT, results)
    written = [ending.number for ending in mine]
    notifying = {row.number for row in found if row.notifies}
    if notifying:
        _note(session, [number for number in written if number in notifying])
    return written


def put_back(session: Session, numbers: Collection[int], worker: str, pause_seconds: float = 0.0) -> None:
    """Give back jobs that `worker` claimed but will not run, as when it shuts down; not an attempt.

    Nobody takes them up again before the pause is over, as where what they need is away.
    """
    held = {"numbers": list(numbers), "of_worker": worker, "pause_ms": int(pause_seconds * 1000)}
    _requeued(session, sql.GIVE_BACK, held)


def retry(session: Session, claimed: Claimed) -> bool:
    """Give back a job that failed by no fault of its own, with back-off; False where that was its last attempt.

    Also False where the fence was lost: the job's ending would be dropped as well.
    """
    held = {"of_number": claimed.number, "held_fence": claimed.fence}
    return _requeued(session, sql.TRY_AGAIN, held) > 0


def cancel(session: Session, job: Job, reason: str | None = None) -> bool:
    """Cancel a job that is not final; returns whether this call did. A running one's result will be dropped.

    A file's chunks end with it. `reason` is the message of its error.
    """
    canceled = _end(session, sql.CANCEL, _canceled([job.number], message=reason))
    session.expire(job)
    return bool(canceled)


def recover(session: Session, alive: Collection[str]) -> tuple[int, list[str]]:
    """A page of jobs whose lease ran out: back to queued, or failed after the last attempt.

    Returns how many went back, and the ids of those that failed. A lease that ran out although its worker is among
    `alive` counts as no attempt: the database was slow, not the job bad.
    """
    page = {"numbers": lost(session), "alive": sorted(alive)}
    if not page["numbers"]:
        return 0, []
    failed = _end(session, sql.FAIL_LOST, page)
    return _requeued(session, sql.TAKE_BACK, page), failed


def expire(session: Session) -> list[str]:
    """A page of jobs past their deadline ends: queued ones without running, files also while they run.

    Returns their ids.
    """
    numbers = late(session)
    return _end(session, sql.EXPIRE, {"numbers": numbers}) if numbers else []


def end_orphans(session: Session) -> list[str]:
    """A page of chunks whose file has ended or is gone: unfinished ones are canceled, the others are forgotten.

    Returns the names of their payloads in the store.
    """
    rows = orphans(session)
    unfinished = [row.number for row in rows if row.state not in FINAL]
    if unfinished:
        _end(session, sql.CANCEL, _canceled(unfinished))
    ended = [row for row in rows if row.state in FINAL]
    forget(session, [row.number for row in ended])
    return _stored(ended)


def forget(session: Session, numbers: Collection[int]) -> None:
    """Delete jobs with their inputs and results."""
    for column in (JobInput.job, JobResult.job, Job.number):
        session.execute(delete(column.class_).where(column.in_(numbers)).execution_options(synchronize_session=False))


def _lease(worker: str) -> dict[str, Any]:
    return {"new_worker": worker, "lease_ms": LEASE_MILLISECONDS}


def _permitted(
    session: Session, rows: Sequence[Row[*tuple[Any, ...]]], standing: Standing, ended: list[str] | None
) -> list[Claimed]:
    """Of jobs that were just claimed, those that may still run; the others are canceled."""
    inside = [row.number for row in rows if not row.input_stored]
    inputs = dict(iter(session.connection().execute(sql.INPUTS, {"numbers": inside}))) if inside else {}
    claimed: list[Claimed] = []
    if not rows:
        return claimed
    moment = read_moment(session)
    for row in rows:
        withdrawal = standing.withdrawn(
            session, moment, (row.client_id, "submit", row.model, row.version, row.grant_id)
        )
        authority = Authority(row.grant_id, row.token_id, row.token_issued_at)
        if withdrawal is None and standing.refuses(session, moment[0], row.client_id, authority):
            withdrawal = Withdrawal.TOKEN_REVOKED
        if withdrawal is not None:
            ids = _end(session, sql.CANCEL, _canceled([row.number], withdrawal.value, REASONS[withdrawal]))
            if ended is not None:
                ended += ids
            continue
        body = inputs.get(row.number)
        taken = (row.number, row.id, row.fence, row.attempt, row.dialect, row.instances)
        claimed.append(Claimed(*taken, body, row.max_attempts, max(0, row.waited_ms)))
    return claimed


def _end(session: Session, move: UpdateBase, values: Mapping[str, Any]) -> list[str]:
    """Make a move into a final state; a file's chunks are canceled with it. Returns the ids of the jobs that moved."""
    rows = session.connection().execute(move, values).all()
    files = [row.number for row in rows if row.kind == FILE]
    chunks = session.connection().execute(sql.CANCEL_CHUNKS, _canceled(files)).all() if files else []
    _note(session, [row.number for row in rows if row.notifies])
    count_out(
        session,
        # Who never ran, or was put back since, has no worker.
        [(row.lane, row.dispatched_at is None) for row in (*rows, *chunks) if row.worker is None and row.kind != FILE],
    )
    return [row.id for row in rows]


def _requeued(session: Session, move: UpdateBase, values: Mapping[str, Any]) -> int:
    rows = session.connection().execute(move, values).all()
    lanes = Counter(row.lane for row in rows if row.lane != NO_LANE)
    # In the order of their names everywhere: two transactions that count the same lanes must not wait for each other.
    for lane in sorted(lanes):
        # The lane may have been forgotten as idle while its last jobs ran.
        count_in(session, Lane.parse(lane), lanes[lane], ahead_limit=0)
    return len(rows)


def _note(session: Session, numbers: Sequence[int]) -> None:
    if numbers:
        webhook_outbox.note_ends(session, numbers)


def _canceled(numbers: Sequence[int], code: str = "canceled", message: str | None = None) -> dict[str, Any]:
    return {"numbers": numbers, "new_error_code": code, "new_error_message": message}


def _stored(rows: Iterable[Row[*tuple[Any, ...]]]) -> list[str]:
    stored = (row for row in rows if row.input_stored or row.result_stored)
    return [name for row in stored for name in payload_names(row.id, row.fence)]


def _count_in(session: Session, drafts: Sequence[Draft], ahead_limit: int) -> set[str]:
    """Count new jobs into their lanes; returns the ids of those that may be laid out at once."""
    by_lane: dict[Lane, list[Draft]] = {}
    for draft in drafts:
        if draft.kind != FILE:
            by_lane.setdefault(draft.lane, []).append(draft)
    at_once: set[str] = set()
    # In the order of their names: two gateways that count the same lanes must not wait for each other.
    for lane in sorted(by_lane, key=lambda lane: lane.name):
        mine = by_lane[lane]
        room = 0 if mine[0].waits else ahead_limit
        at_once.update(draft.id for draft in mine[: count_in(session, lane, len(mine), room)])
    return at_once
