"""The SQL that every job passes through, written once: building a statement for a batch took longer than running it.

A batch of 32 was finished in 9 ms when its statements were built each time, and takes under 1 ms now. States are spelt
out, since an index of some rows is found by its condition and not by a parameter.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Table,
    and_,
    bindparam,
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
from workers.tables import Job, JobInput, JobResult, LaneCount

NUMBERS: BindParameter[Sequence[int]] = bindparam("numbers", expanding=True)
JOBS: Table = Job.__table__  # type: ignore[assignment] # a declarative class's table is a Table

QUEUED: ColumnElement[bool] = Job.state == literal_column("'queued'")
RUNNING: ColumnElement[bool] = Job.state == literal_column("'running'")

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

CLAIM = (
    update(JOBS)
    .where(
        Job.number.in_(NUMBERS),
        # An entry's lane says what it is for; its number alone must not bring a job of another model.
        Job.model == bindparam("of_model"),
        Job.version == bindparam("of_version"),
        QUEUED,
        or_(Job.deadline.is_(None), Job.deadline > now_ms()),
    )
    .values(
        state="running",
        fence=Job.fence + 1,
        attempt=Job.attempt + 1,
        worker=bindparam("new_worker"),
        started_at=now_ms(),
        lease_until=now_ms() + bindparam("lease_ms", type_=BigInteger),
    )
    .returning(
        Job.number, Job.id, Job.fence, Job.attempt, Job.dialect, Job.instances, Job.input_stored, Job.client_id,
        Job.lane, Job.dispatched_at, Job.grant_id, Job.token_id, Job.token_issued_at,
    )
)  # fmt: skip

HELD = select(Job.number, Job.fence).where(Job.number.in_(NUMBERS), RUNNING).with_for_update()
FINISH = (
    update(JOBS)
    .where(Job.number == bindparam("job"), Job.fence == bindparam("held_fence"), RUNNING)
    .values(
        state=bindparam("new_state"),
        result_stored=bindparam("new_result_stored"),
        error_code=bindparam("new_error_code"),
        error_message=bindparam("new_error_message"),
        finished_at=now_ms(),
        lease_until=None,
    )
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
