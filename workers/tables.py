"""SQL tables of jobs, their lanes, preparations and leases."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, ForeignKeyConstraint, Index, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms


class Job(Base):
    """One asynchronous prediction: the promise behind a 202. Only workers/jobs.py changes its state."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("jobs_to_lay_out", "lane", "state", "dispatched_at", "sequence"),
        Index("jobs_by_client", "client_id", "sequence"),
        Index("jobs_by_version", "model", "version", "state"),
        Index("jobs_by_lease", "state", "lease_until"),
        Index("jobs_by_end", "finished_at"),
    )

    # 128 random bits and more: an id is also what keeps a job from strangers (ASVS 11.5.1).
    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    # Time in milliseconds, then a counter: the order in a lane and of lists.
    sequence: Mapped[int] = mapped_column(BigInteger)
    client_id: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(128))
    version: Mapped[int] = mapped_column(Integer)
    priority: Mapped[str] = mapped_column(String(16))
    lane: Mapped[str] = mapped_column(String(400))
    dialect: Mapped[str] = mapped_column(String(32))
    state: Mapped[str] = mapped_column(String(16))
    fence: Mapped[int] = mapped_column(Integer, default=0)
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    worker: Mapped[str | None] = mapped_column(String(200))
    instances: Mapped[int] = mapped_column(Integer, default=1)
    input: Mapped[bytes | None] = mapped_column(LargeBinary)  # up to 64 KiB; a larger one lies in the store
    input_stored: Mapped[bool] = mapped_column(Boolean, default=False)
    result: Mapped[bytes | None] = mapped_column(LargeBinary)  # the answer's body in the dialect of the request
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


class Lease(Base):
    """A role that one process of many holds for a while, such as the dispatcher."""

    __tablename__ = "leases"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    holder: Mapped[str] = mapped_column(String(64))
    until: Mapped[int] = mapped_column(BigInteger)
