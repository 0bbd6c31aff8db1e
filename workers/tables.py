"""SQL tables of jobs, their lanes, preparations and leases."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    ForeignKeyConstraint,
    Identity,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    false,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms

_QUEUED = text("state = 'queued'")
_RUNNING = text("state = 'running'")
_ENDED = text("finished_at IS NOT NULL")
_DEAD = text("dead")
_CHUNK = text("parent IS NOT NULL")


class Job(Base):
    """One asynchronous prediction: the promise behind a 202. Only workers/jobs.py changes its state.

    The row is small, since it changes with every move; what it carries lies in tables of its own. Each index holds only
    the rows that its question is about, so that a job costs nothing there before and after.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_by_lane", "lane", "number", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
        Index("jobs_by_deadline", "deadline", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
        Index("jobs_by_lease", "lease_until", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
        Index("jobs_by_end", "finished_at", sqlite_where=_ENDED, postgresql_where=_ENDED),
        Index("jobs_by_client", "client_id", "number"),
        Index("jobs_dead", "number", sqlite_where=_DEAD, postgresql_where=_DEAD),
        Index("jobs_by_parent", "parent", sqlite_where=_CHUNK, postgresql_where=_CHUNK),
        # A number is never given again, not even where the youngest jobs were deleted: whoever still runs one of those
        # would write its result into another's job.
        {"sqlite_autoincrement": True},
    )

    # Counted up as jobs are accepted: their order in a lane and in lists, and what a lane's entry says.
    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), Identity(always=False), primary_key=True
    )
    # By what it was let in (auth/standing.py): asked for again before it runs.
    grant_id: Mapped[int | None] = mapped_column(Integer)
    token_id: Mapped[str | None] = mapped_column(String(128))
    token_issued_at: Mapped[int | None] = mapped_column(BigInteger)  # seconds since 1970
    # 128 random bits and more: an id is also what keeps a job from strangers (ASVS 11.5.1).
    id: Mapped[str] = mapped_column(String(32), unique=True)
    client_id: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(128))
    version: Mapped[int] = mapped_column(Integer)
    priority: Mapped[str] = mapped_column(String(16))
    lane: Mapped[str] = mapped_column(String(400))
    dialect: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    fence: Mapped[int] = mapped_column(Integer, default=0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    worker: Mapped[str | None] = mapped_column(String(256))  # the session that holds the lease
    instances: Mapped[int] = mapped_column(Integer, default=1)
    input_stored: Mapped[bool] = mapped_column(Boolean, default=False)
    result_stored: Mapped[bool] = mapped_column(Boolean, default=False)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    dispatched_at: Mapped[int | None] = mapped_column(BigInteger)
    started_at: Mapped[int | None] = mapped_column(BigInteger)
    finished_at: Mapped[int | None] = mapped_column(BigInteger)
    not_before: Mapped[int] = mapped_column(BigInteger, default=0)  # back-off after a failed attempt
    deadline: Mapped[int | None] = mapped_column(BigInteger)
    lease_until: Mapped[int | None] = mapped_column(BigInteger)
    # A prediction, a file of many, or a chunk of such a file; a chunk's `parent` is the file's number.
    kind: Mapped[str] = mapped_column(String(16), default="prediction", server_default="prediction")
    parent: Mapped[int | None] = mapped_column(BigInteger)
    max_attempts: Mapped[int] = mapped_column(Integer, default=3, server_default="3")
    notifies: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())  # its end is told by webhook
    dead: Mapped[bool] = mapped_column(Boolean, default=False, server_default=false())  # failed by no fault of its own
    replay_of: Mapped[str | None] = mapped_column(String(32))  # the id of the dead job that this one tries again
    replayed_as: Mapped[str | None] = mapped_column(String(32))  # the id of the job that tried this one again
    done: Mapped[int] = mapped_column(Integer, default=0, server_default="0")  # of its instances
    # What a receipt says: SHA-256 of the request's and of the answer's body, and what ran, as JSON.
    input_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    output_digest: Mapped[bytes | None] = mapped_column(LargeBinary)
    result_bytes: Mapped[int | None] = mapped_column(BigInteger)
    ran_on: Mapped[str | None] = mapped_column(Text)


class JobInput(Base):
    """The body of a job's request, up to 64 KiB; a larger one lies in the store. Written once."""

    __tablename__ = "job_inputs"

    job: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    body: Mapped[bytes] = mapped_column(LargeBinary)


class JobResult(Base):
    """The body of a job's answer in the dialect of its request, up to 64 KiB. Written once, by the fence's holder."""

    __tablename__ = "job_results"

    job: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    body: Mapped[bytes] = mapped_column(LargeBinary)


class LaneCount(Base):
    """How many queued jobs a lane has, and how many of these still wait to be laid out.

    Kept in the jobs' own transactions, so that no question about depth ever counts rows.
    """

    __tablename__ = "lane_counts"
    __table_args__ = (Index("lane_counts_by_client", "client_id"),)

    lane: Mapped[str] = mapped_column(String(400), primary_key=True)
    client_id: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(128))
    version: Mapped[int] = mapped_column(Integer)
    queued: Mapped[int] = mapped_column(Integer, default=0)
    waiting: Mapped[int] = mapped_column(Integer, default=0)
    # How many ever left `queued`, by whatever move: what estimates are reckoned from.
    taken: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    updated_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


class Preparation(Base):
    """The work of preparing one version: due at `next_at`, held under a lease, fenced like a job."""

    __tablename__ = "preparations"
    __table_args__ = (
        ForeignKeyConstraint(["model", "version"], ["versions.model", "versions.number"], ondelete="CASCADE"),
        Index("preparations_due", "next_at"),
    )

    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    version: Mapped[int] = mapped_column(Integer, primary_key=True)
    step: Mapped[str] = mapped_column(String(32), default="receive")
    done: Mapped[bool] = mapped_column(Boolean, default=False)
    fence: Mapped[int] = mapped_column(Integer, default=0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    next_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    lease_until: Mapped[int | None] = mapped_column(BigInteger)
    policy: Mapped[str | None] = mapped_column(Text)  # what to prepare with in the place of the model's variant policy


class Lease(Base):
    """A role that one process of many holds for a while, such as the dispatcher."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    until: Mapped[int] = mapped_column(BigInteger)
