"""SQL tables of webhooks: where clients are told, under which secrets, and every telling."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, ForeignKey, Identity, Index, Integer, LargeBinary, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms

_WAITING = text("state = 'waiting'")
_SENDING = text("state = 'sending'")
_ENDED = text("ended_at IS NOT NULL")
_OF_JOB = text("job_id IS NOT NULL")


class WebhookEndpoint(Base):
    """An address that a client wants to be told at."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("webhook_endpoints_by_client", "client_id"),)

    id: Mapped[str] = mapped_column(String(32), primary_key=True)  # whe_…, made by the server
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"))
    url: Mapped[str] = mapped_column(Text)
    events: Mapped[str] = mapped_column(String(255))  # separated by spaces; empty: all
    description: Mapped[str] = mapped_column(String(256))
    disabled: Mapped[bool] = mapped_column(Boolean)
    disabled_reason: Mapped[str | None] = mapped_column(String(32))  # where nobody but we disabled it
    failing_since: Mapped[int | None] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


class WebhookSecret(Base):
    """What signs: one for each endpoint, and one of a client for addresses that its submits name; sealed."""

    __tablename__ = "webhook_secrets"
    __table_args__ = (Index("webhook_secrets_by_client", "client_id"),)

    owner: Mapped[str] = mapped_column(String(64), primary_key=True)  # an endpoint's id, or a client's
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"))
    sealed: Mapped[bytes] = mapped_column(LargeBinary)
    # The one before the last rotation, while both sign.
    previous: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_until: Mapped[int | None] = mapped_column(BigInteger)
    # Since when addresses that submits named took nothing; an endpoint's own row says it of the endpoint.
    failing_since: Mapped[int | None] = mapped_column(BigInteger)


class JobWebhook(Base):
    """The address that a submit named, until its job ends."""

    __tablename__ = "job_webhooks"

    job_id: Mapped[str] = mapped_column(String(32), primary_key=True)
    url: Mapped[str] = mapped_column(Text)


class WebhookDelivery(Base):
    """One event on its way to one address. Only workers/webhooks/deliveries.py changes its state."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        # By target first: those that are due are found without a look at all that wait for one dead receiver.
        Index("webhook_deliveries_waiting", "target", "next_at", sqlite_where=_WAITING, postgresql_where=_WAITING),
        Index("webhook_deliveries_sending", "lease_until", sqlite_where=_SENDING, postgresql_where=_SENDING),
        Index("webhook_deliveries_ended", "ended_at", sqlite_where=_ENDED, postgresql_where=_ENDED),
        Index("webhook_deliveries_of_job", "job_id", sqlite_where=_OF_JOB, postgresql_where=_OF_JOB),
        Index("webhook_deliveries_by_client", "client_id", "number"),
        {"sqlite_autoincrement": True},
    )

    number: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), Identity(always=False), primary_key=True
    )
    id: Mapped[str] = mapped_column(String(80), unique=True)  # msg_…: `webhook-id`, the same for all attempts
    client_id: Mapped[str] = mapped_column(String(64))
    target: Mapped[str] = mapped_column(String(64))  # an endpoint's id, or the client's: an address that a submit named
    job_id: Mapped[str | None] = mapped_column(String(32))
    type: Mapped[str] = mapped_column(String(32))
    url: Mapped[str] = mapped_column(Text)
    body: Mapped[str | None] = mapped_column(Text)  # written at the first hand-over
    state: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int] = mapped_column(Integer)
    fence: Mapped[int] = mapped_column(Integer)
    next_at: Mapped[int | None] = mapped_column(BigInteger)
    lease_until: Mapped[int | None] = mapped_column(BigInteger)
    # Of the attempt that was handed over last: seconds since 1970, and the value of `webhook-signature`.
    signed_at: Mapped[int | None] = mapped_column(BigInteger)
    signature: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[str] = mapped_column(Text)  # JSON: the latest ones, each with moment, milliseconds, status, error
    schedule_from: Mapped[int] = mapped_column(BigInteger)  # the first attempt's moment; a replay begins anew
    created_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)
