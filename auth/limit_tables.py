"""SQL tables of clients' limits, and of what they used of their daily quotas."""

from __future__ import annotations

from sqlalchemy import BigInteger, Float, ForeignKey, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms


class ClientLimit(Base):
    """The bounds of one client on one model, or (model '') on everything that it asks for; null is no bound."""

    __tablename__ = "client_limits"

    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True)
    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    requests_per_second: Mapped[float | None] = mapped_column(Float)
    burst: Mapped[int | None] = mapped_column(Integer)
    instances_per_day: Mapped[int | None] = mapped_column(BigInteger)
    concurrent_requests: Mapped[int | None] = mapped_column(Integer)
    queued_jobs: Mapped[int | None] = mapped_column(Integer)
    running_jobs: Mapped[int | None] = mapped_column(Integer)
    body_bytes: Mapped[int | None] = mapped_column(BigInteger)
    bytes_per_day: Mapped[int | None] = mapped_column(BigInteger)
    job_keep_seconds: Mapped[int | None] = mapped_column(Integer)


class QuotaUsage(Base):
    """What was used on one day (UTC, in days since 1970) of the quotas of one client, on one model or ('') on all.

    Without a reference to the client: a gateway may write what a client used that was deleted a moment ago.
    """

    __tablename__ = "quota_usage"

    day: Mapped[int] = mapped_column(Integer, primary_key=True)
    client_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    model: Mapped[str] = mapped_column(String(128), primary_key=True)
    instances: Mapped[int] = mapped_column(BigInteger)
    bytes: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
