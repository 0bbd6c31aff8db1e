"""Jobs are numbered, their rows are small, and each index holds only the rows that it is asked about."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

LOCK_SECONDS = 60.0
LOCK_PAUSE_SECONDS = 0.05
QUEUED = sa.text("state = 'queued'")
RUNNING = sa.text("state = 'running'")
ENDED = sa.text("finished_at IS NOT NULL")
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# What both forms of the table have, in the same order.
SHARED = (
    "id, client_id, model, version, priority, lane, dialect, state, fence, attempt, worker, instances, input_stored, "
    "result_stored, error_code, error_message, created_at, dispatched_at, started_at, finished_at, not_before, "
    "deadline, lease_until"
)


def upgrade() -> None:
    lock_tables()
    op.rename_table("jobs", "jobs_before")
    drop_indexes("jobs_before", "client", "end", "lease", "version")
    op.drop_index("jobs_to_lay_out", "jobs_before")
    release_key("jobs_before")
    op.create_table(
        "jobs",
        sa.Column("number", NUMBER, sa.Identity(always=False), nullable=False),
        *shared_columns(256),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sqlite_autoincrement=True,
    )
    for table in ("job_inputs", "job_results"):
        op.create_table(
            table,
            sa.Column("job", NUMBER, autoincrement=False, nullable=False),
            sa.Column("body", sa.LargeBinary(), nullable=False),
            sa.PrimaryKeyConstraint("job", name=op.f(f"pk_{table}")),
        )
        if op.get_context().dialect.name == "postgresql":
            # Compressing 4 KB of JSON took two thirds of what accepting a job costs PostgreSQL.
            op.execute(f"ALTER TABLE {table} ALTER COLUMN body SET STORAGE EXTERNAL")
    op.execute(f"INSERT INTO jobs ({SHARED}) SELECT {SHARED} FROM jobs_before ORDER BY sequence")
    for column, table in (("input", "job_inputs"), ("result", "job_results")):
        op.execute(
            f"INSERT INTO {table} (job, body) SELECT jobs.number, jobs_before.{column} FROM jobs "
            f"JOIN jobs_before ON jobs_before.id = jobs.id WHERE jobs_before.{column} IS NOT NULL"
        )
    # Redis still holds entries that name jobs by their id: nobody reads those. Laid out again, they are numbers.
    op.execute("UPDATE jobs SET dispatched_at = NULL WHERE state = 'queued'")
    op.execute("UPDATE lane_counts SET waiting = queued")
    op.drop_table("jobs_before")
    op.create_index("jobs_by_client", "jobs", ["client_id", "number"])
    create_partial("jobs_by_lane", ["lane", "number"], QUEUED)
    create_partial("jobs_by_deadline", ["deadline"], QUEUED)
    create_partial("jobs_by_lease", ["lease_until"], RUNNING)
    create_partial("jobs_by_end", ["finished_at"], ENDED)


def downgrade() -> None:
    lock_tables()
    op.execute("UPDATE jobs SET worker = substr(worker, 1, 200)")
    op.rename_table("jobs", "jobs_after")
    drop_indexes("jobs_after", "client", "lane", "deadline", "lease", "end")
    release_key("jobs_after")
    op.create_table(
        "jobs",
        *shared_columns(200),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("input", sa.LargeBinary(), nullable=True),
        sa.Column("result", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    op.execute(
        f"INSERT INTO jobs ({SHARED}, sequence, input, result) SELECT {SHARED}, number, job_inputs.body, "
        "job_results.body FROM jobs_after LEFT JOIN job_inputs ON job_inputs.job = number "
        "LEFT JOIN job_results ON job_results.job = number"
    )
    op.execute("UPDATE jobs SET dispatched_at = NULL WHERE state = 'queued'")
    op.execute("UPDATE lane_counts SET waiting = queued")
    for table in ("job_results", "job_inputs", "jobs_after"):
        op.drop_table(table)
    op.create_index("jobs_by_client", "jobs", ["client_id", "sequence"])
    op.create_index("jobs_by_end", "jobs", ["finished_at"])
    op.create_index("jobs_by_lease", "jobs", ["state", "lease_until"])
    op.create_index("jobs_by_version", "jobs", ["model", "version", "state"])
    op.create_index("jobs_to_lay_out", "jobs", ["lane", "state", "dispatched_at", "sequence"])


def shared_columns(worker_length: int) -> list[sa.Column[object]]:
    return [
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("client_id", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("priority", sa.String(length=16), nullable=False),
        sa.Column("lane", sa.String(length=400), nullable=False),
        sa.Column("dialect", sa.String(length=32), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=worker_length), nullable=True),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("input_stored", sa.Boolean(), nullable=False),
        sa.Column("result_stored", sa.Boolean(), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), server_default=clock(), nullable=False),
        sa.Column("dispatched_at", sa.BigInteger(), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
    ]


def lock_tables() -> None:
    """Both tables at once: a gateway that still accepts jobs holds them one by one, and in the other order."""
    context = op.get_context()
    if context.dialect.name != "postgresql":
        return
    lock = "LOCK TABLE jobs, lane_counts IN ACCESS EXCLUSIVE MODE"
    if context.as_sql:
        op.execute(lock)
        return
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            with op.get_bind().begin_nested():
                op.execute(f"{lock} NOWAIT")
        except sa.exc.OperationalError:
            if time.monotonic() > until:
                raise
            time.sleep(LOCK_PAUSE_SECONDS)
        else:
            return


def drop_indexes(table: str, *names: str) -> None:
    for name in names:
        op.drop_index(f"jobs_by_{name}", table)


def release_key(table: str) -> None:
    """PostgreSQL keeps the names of constraints when their table is renamed; the new table needs them."""
    if op.get_context().dialect.name == "postgresql":
        for name in ("pk_jobs", "uq_jobs_id"):
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")


def create_partial(name: str, columns: list[str], where: sa.TextClause) -> None:
    op.create_index(name, "jobs", columns, sqlite_where=where, postgresql_where=where)


def clock() -> sa.TextClause:
    """The database's clock in milliseconds since 1970, spelt out: later changes of the code must not reach this."""
    if op.get_context().dialect.name == "sqlite":
        return sa.text("(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))")
    return sa.text("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
