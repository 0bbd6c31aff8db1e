"""SQL tables of clients and their grants."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms


class Client(Base):
    """A registered consumer. Its secret is kept as a keyed hash only."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # cli_…, made by the server
    name: Mapped[str] = mapped_column(String(128), unique=True)
    secret_hash: Mapped[str] = mapped_column(String(64))  # HMAC-SHA-256 in hexadecimal
    # The secret before the last rotation, while both are good.
    previous_secret_hash: Mapped[str | None] = mapped_column(String(64))
    previous_secret_until: Mapped[int | None] = mapped_column(BigInteger)
    scopes: Mapped[str] = mapped_column(String(512))  # separated by spaces, as in RFC 6749
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    # Tokens issued before this moment are refused: raised when the client is disabled or its secret is rotated.
    tokens_not_before: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


class Grant(Base):
    """What a client may do with a model: with one version, one label, or (neither given) with all of them."""

    __tablename__ = "grants"
    __table_args__ = (Index("grants_by_client", "client_id"),)

    id: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"))
    model: Mapped[str] = mapped_column(String(128))  # a name, or a pattern with asterisks
    version: Mapped[int | None] = mapped_column(Integer)
    label: Mapped[str | None] = mapped_column(String(128))
    actions: Mapped[str] = mapped_column(String(128))  # of auth/grants.py's; separated by spaces
    expires_at: Mapped[int | None] = mapped_column(BigInteger)
    weight: Mapped[float] = mapped_column(Float, default=1.0, server_default="1")  # its share among clients
