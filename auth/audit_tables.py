"""SQL tables of the audit log: its entries, the end of its chain, and the signed heads."""

from __future__ import annotations

from sqlalchemy import BigInteger, Identity, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms

_UNSEALED = text("number IS NULL")
_COUNTED = BigInteger().with_variant(Integer, "sqlite")


class AuditEntry(Base):
    """Who did what to which, and how it ended. Written once; only its place in the chain is added, a moment later.

    `id` is given when it is written, `number` when it is sealed: transactions commit in another order than they began,
    and the chain must not have to wait for, or pass over, one that is late.
    """

    __tablename__ = "audit_entries"
    __table_args__ = (
        Index("audit_entries_unsealed", "id", sqlite_where=_UNSEALED, postgresql_where=_UNSEALED),
        Index("audit_entries_by_time", "at", "id"),
        Index("audit_entries_by_identity", "identity", "at", "id"),
        Index("audit_entries_by_act", "act", "at", "id"),
        Index("audit_entries_by_model", "model", "at", "id"),
        Index("audit_entries_by_outcome", "outcome", "at", "id"),
        # An id is never given again, not even where the youngest entries were deleted.
        {"sqlite_autoincrement": True},
    )

    id: Mapped[int] = mapped_column(_COUNTED, Identity(always=False), primary_key=True)
    number: Mapped[int | None] = mapped_column(BigInteger, unique=True)  # from 1 on, without a gap
    hash: Mapped[str | None] = mapped_column(String(64))  # SHA-256 in hexadecimal, see auth/audit_chain.py
    at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    identity: Mapped[str] = mapped_column(String(64))  # cli_…, usr_…, `local` for the command line, else empty
    name: Mapped[str] = mapped_column(String(128))
    act: Mapped[str] = mapped_column(String(64))
    model: Mapped[str | None] = mapped_column(String(128))
    version: Mapped[int | None] = mapped_column(Integer)
    digest: Mapped[str | None] = mapped_column(String(64))
    outcome: Mapped[str] = mapped_column(String(16))  # done, refused
    reason: Mapped[str | None] = mapped_column(String(64))  # the error's code
    request_id: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(64))
    count: Mapped[int] = mapped_column(Integer)  # how many equal ones this entry stands for
    detail: Mapped[str] = mapped_column(Text)  # a JSON object of texts


class AuditChain(Base):
    """One row: where the chain begins and ends. Whoever seals locks it, so one process at a time does."""

    __tablename__ = "audit_chain"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    # The last number that retention took away (0: none) with its hash, and the last number that was given with its.
    before_number: Mapped[int] = mapped_column(BigInteger, default=0)
    before_hash: Mapped[str] = mapped_column(String(64))
    number: Mapped[int] = mapped_column(BigInteger, default=0)
    hash: Mapped[str] = mapped_column(String(64))
    sent: Mapped[int] = mapped_column(BigInteger, default=0)  # the last number that went to syslog
    sent_head: Mapped[int] = mapped_column(BigInteger, default=0)  # the same of heads


class AuditHead(Base):
    """A signature over the chain as it was at one moment; see auth/audit_heads.py."""

    __tablename__ = "audit_heads"

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    hash: Mapped[str] = mapped_column(String(64))
    before_number: Mapped[int] = mapped_column(BigInteger)
    before_hash: Mapped[str] = mapped_column(String(64))
    at: Mapped[int] = mapped_column(BigInteger)
    key: Mapped[str] = mapped_column(String(130))  # the public key: an uncompressed point (SEC 1, 2.3.3), hexadecimal
    signature: Mapped[str] = mapped_column(String(160))  # ECDSA with SHA-256, DER, hexadecimal
