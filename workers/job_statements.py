"""The SQL that every job passes through, written once: building a statement for a batch took longer than running it.

A batch of 32 was finished in 9 ms when its statements were built each time, and takes under 1 ms now. States are spelt
out, since an index of some rows is found by its condition and not by a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    String,
    Table,
    and_,
    bindparam,
    case,
    cast,
    column,
    func,
    insert,
    literal_column,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute

from model_store.database import now_ms
from workers.attempts import back_off_ms
from workers.drafts import FILE
from workers.tables import Job, JobInput, JobResult, LaneCount

NUMBERS: BindParameter[Sequence[int]] = bindparam("numbers", expanding=True)
JOBS: Table = Job.__table__  # type: ignore[assignment] # a declarative class's table is a Table

QUEUED: ColumnElement[bool] = Job.state == literal_column("'queued'")
RUNNING: ColumnElement[bool] = Job.state == literal_column("'running'")
# As the index of dead letters has it: SQLite takes an index of some rows for no other words than its own.
DEAD: ColumnElement[Any] = literal_column("jobs.dead")
UNFINISHED: ColumnElement[bool] = or_(QUEUED, RUNNING)

# The order in which a lane's queued jobs run. With `in_lane` only the index of lanes can give it: PostgreSQL, whose
# figures of a busy table are always old, would else read the whole table in the order of numbers and filter it.
LANE_ORDER = (Job.lane, Job.number)


def in_lane(lane: str | InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Jobs that wait in a lane. A range of one, since an equal sign would make `LANE_ORDER` an order of numbers."""
    return and_(Job.lane.between(lane, lane), QUEUED)


INSERT = insert(JOBS)
INSERT_INPUT = insert(JobInput.__table__)  # type: ignore[arg-type] # as above
INSERT_RESULT = insert(JobResult.__table__)  # type: ignore[arg-type] # as above

QUEUED_OF = select(func.coalesce(func.sum(LaneCount.queued), 0)).where(LaneCount.client_id == bindparam("of_client"))
QUEUED_OF_MODEL = QUEUED_OF.where(LaneCount.model == bindparam("of_model"))
INPUTS = select(JobInput.job, JobInput.body).where(JobInput.job.in_(NUMBERS))

_NOT_YET_DUE = or_(Job.deadline.is_(None), Job.deadline > now_ms())
_STARTED: dict[str, Any] = {
    "state": "running",
    "fence": Job.fence + 1,
    "attempt": Job.attempt + 1,
    "worker": bindparam("new_worker"),
    "started_at": now_ms(),
    "lease_until": now_ms() + bindparam("lease_ms", type_=BigInteger),
}
_TAKEN = (
    Job.number, Job.id, Job.fence, Job.attempt, Job.dialect, Job.instances, Job.input_stored, Job.client_id, Job.lane,
    Job.dispatched_at, Job.grant_id, Job.token_id, Job.token_issued_at, Job.max_attempts, Job.model, Job.version,
    (Job.started_at - Job.created_at).label("waited_ms"),
)  # fmt: skip
CLAIM = (
    update(JOBS)
    .where(
        Job.number.in_(NUMBERS),
        # An entry's lane says what it is for; its number alone must not bring a job of another model, or a file.
        Job.model == bindparam("of_model"),
        Job.version == bindparam("of_version"),
        Job.kind != FILE,
        QUEUED,
        # An entry that is delivered twice must not cut a back-off short.
        Job.not_before <= now_ms(),
        _NOT_YET_DUE,
    )
    .values(_STARTED)
    .returning(*_TAKEN)
)
CLAIM_FILE = (
    update(JOBS)
    .where(Job.number == bindparam("of_number"), Job.kind == FILE, QUEUED, Job.not_before <= now_ms(), _NOT_YET_DUE)
    .values(_STARTED)
    .returning(*_TAKEN)
)
RENEW = (
    update(JOBS)
    .where(Job.number.in_(NUMBERS), RUNNING, Job.worker == bindparam("of_worker"))
    .values(lease_until=_STARTED["lease_until"])
    .returning(Job.number)
)
SHOW_DONE = (
    update(JOBS)
    .where(Job.number == bindparam("job"), RUNNING, Job.worker == bindparam("of_worker"))
    .values(done=bindparam("now_done"))
)
PROGRESS = (
    update(JOBS)
    .where(Job.number == bindparam("of_number"), Job.fence == bindparam("held_fence"), RUNNING)
    .values(
        done=bindparam("now_done"),
        instances=bindparam("new_instances"),
        # A file that runs for hours may lose many workers: attempts are counted since it last came forward.
        attempt=case((Job.done < bindparam("now_done"), 1), else_=Job.attempt),
        lease_until=_STARTED["lease_until"],
    )
    .returning(Job.number)
)

HELD = select(Job.number, Job.fence, Job.notifies).where(Job.number.in_(NUMBERS), RUNNING).with_for_update()
FINISH = (
    update(JOBS)
    .where(Job.number == bindparam("job"), Job.fence == bindparam("held_fence"), RUNNING)
    .values(
        state=bindparam("new_state"),
        result_stored=bindparam("new_result_stored"),
        error_code=bindparam("new_error_code"),
        error_message=bindparam("new_error_message"),
        dead=bindparam("new_dead"),
        done=case((literal_column("'succeeded'") == bindparam("new_state"), Job.instances), else_=Job.done),
        output_digest=bindparam("new_output_digest"),
        result_bytes=bindparam("new_result_bytes"),
        ran_on=bindparam("new_ran_on"),
        finished_at=now_ms(),
        lease_until=None,
    )
)

# Back to `queued`. A later fence shuts out the run that still believes in its lease; what a prediction had done is done
# again, and a file goes on where it was.
_WAITING: dict[str, Any] = {
    "state": "queued",
    "fence": Job.fence + 1,
    "worker": None,
    "dispatched_at": None,
    "lease_until": None,
    "done": case((Job.kind == FILE, Job.done), else_=0),
}
GIVE_BACK = (
    update(JOBS)
    .where(Job.number.in_(NUMBERS), RUNNING, Job.worker == bindparam("of_worker"))
    .values(_WAITING | {"attempt": Job.attempt - 1, "not_before": now_ms() + bindparam("pause_ms")})
    .returning(Job.number, Job.lane)
)
TRY_AGAIN = (
    update(JOBS)
    .where(
        Job.number == bindparam("of_number"),
        Job.fence == bindparam("held_fence"),
        RUNNING,
        Job.attempt < Job.max_attempts,
    )
    .values(_WAITING | {"not_before": now_ms() + back_off_ms(Job.attempt)})
    .returning(Job.number, Job.lane)
)
_LOST = and_(Job.number.in_(NUMBERS), RUNNING, Job.lease_until < now_ms())
# The database was slow, not the job bad: no attempt where the holder's heart beats.
_COUNTED = Job.attempt - case((Job.worker.in_(bindparam("alive", expanding=True)), 1), else_=0)
TAKE_BACK = (
    update(JOBS)
    .where(_LOST, Job.max_attempts > _COUNTED)
    .values(_WAITING | {"attempt": _COUNTED, "not_before": now_ms() + back_off_ms(_COUNTED)})
    .returning(Job.number, Job.lane)
)

# Into a final state. The worker is kept: after the write it says whether the job was running.
_ENDED = (Job.number, Job.id, Job.lane, Job.kind, Job.dispatched_at, Job.worker, Job.notifies)
_OVER: dict[str, Any] = {"finished_at": now_ms(), "lease_until": None}
_CANCELED = _OVER | {
    "state": "canceled",
    "error_code": bindparam("new_error_code"),
    "error_message": bindparam("new_error_message"),
}
CANCEL = update(JOBS).where(Job.number.in_(NUMBERS), UNFINISHED).values(_CANCELED).returning(*_ENDED)
CANCEL_CHUNKS = update(JOBS).where(Job.parent.in_(NUMBERS), UNFINISHED).values(_CANCELED).returning(*_ENDED)
# A model that kills its worker would come back for ever; three attempts tell a bad job from a bad machine.
FAIL_LOST = (
    update(JOBS)
    .where(_LOST, Job.max_attempts <= _COUNTED)
    .values(
        _OVER
        | {
            "state": "failed",
            "dead": True,
            "attempt": _COUNTED,
            "error_code": "worker_crashed",
            "error_message": "whatever ran this job died " + cast(_COUNTED, String) + " times; it was not tried again",
        }
    )
    .returning(*_ENDED)
)
EXPIRE = (
    update(JOBS)
    .where(Job.number.in_(NUMBERS), Job.deadline < now_ms(), or_(QUEUED, and_(RUNNING, Job.kind == FILE)))
    .values(
        _OVER
        | {
            "state": "expired",
            "error_code": "deadline_passed",
            "error_message": "the job's deadline passed before it could run",
        }
    )
    .returning(*_ENDED)
)

# The last number ever given, which SQLite remembers for a table whose numbers are not to come again.
_SQLITE_SEQUENCE = table("sqlite_sequence", column("name"), column("seq", BigInteger))
_LAST = select(now_ms(), func.coalesce(func.max(_SQLITE_SEQUENCE.c.seq), 0)).where(_SQLITE_SEQUENCE.c.name == "jobs")
_NEXT = select(now_ms(), func.nextval(func.pg_get_serial_sequence("jobs", "number"))).select_from(
    func.generate_series(1, bindparam("count"))
)


def take_numbers(connection: Connection, count: int) -> tuple[int, Sequence[int]]:
    """The database's clock in milliseconds and the next `count` numbers of jobs, in one question.

    On SQLite, whoever writes is alone; PostgreSQL has a sequence for this.
    """
    if connection.dialect.name == "postgresql":
        rows = connection.execute(_NEXT, {"count": count}).all()
        return rows[0][0], [number for _, number in rows]
    now, last = connection.execute(_LAST).one()
    return now, range(last + 1, last + 1 + count)
