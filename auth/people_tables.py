"""SQL tables of people, their recovery codes, their sessions, and tokens that are good for one use."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, ForeignKey, Index, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms


class Person(Base):
    """Somebody who signs in; people have passwords and roles, clients have secrets and scopes."""

    __tablename__ = "people"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)  # usr_…, made by the server
    name: Mapped[str] = mapped_column(String(128), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    # argon2id in PHC format, with its own salt and costs; empty for somebody who has yet to choose a password.
    password_hash: Mapped[str] = mapped_column(String(255))
    disabled: Mapped[bool] = mapped_column(Boolean, default=False)
    # Tokens and sessions begun before this moment are refused.
    tokens_not_before: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    # Secrets of RFC 6238, sealed: the one in use, and the one that is being set up.
    second_factor: Mapped[bytes | None] = mapped_column(LargeBinary)
    second_factor_offered: Mapped[bytes | None] = mapped_column(LargeBinary)
    # The last time step whose code was used (30 s each since 1970): each code is good once.
    last_step: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


class RecoveryCode(Base):
    """Stands in for a lost second factor, once; kept as a keyed hash only."""

    __tablename__ = "recovery_codes"

    person_id: Mapped[str] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"), primary_key=True)
    code_hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # HMAC-SHA-256 in hexadecimal


class PersonSession(Base):
    """A person's session in a browser; what the cookie says is kept as a hash only."""

    __tablename__ = "person_sessions"
    __table_args__ = (Index("person_sessions_by_person", "person_id"), Index("person_sessions_by_end", "expires_at"))

    cookie_hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 in hexadecimal, of 256 random bits
    id: Mapped[str] = mapped_column(String(64), unique=True)  # ses_…, to name it in lists: of no use to sign in with
    person_id: Mapped[str] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    address: Mapped[str] = mapped_column(String(64))
    program: Mapped[str] = mapped_column(String(200))  # what the browser calls itself
    created_at: Mapped[int] = mapped_column(BigInteger)
    seen_at: Mapped[int] = mapped_column(BigInteger)  # a minute late at most
    expires_at: Mapped[int] = mapped_column(BigInteger)


class OneTimeToken(Base):
    """Good for one act: making the first administrator, or choosing a password; kept as a hash only."""

    __tablename__ = "one_time_tokens"

    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 in hexadecimal, of 256 random bits
    purpose: Mapped[str] = mapped_column(String(16))
    person_id: Mapped[str | None] = mapped_column(ForeignKey("people.id", ondelete="CASCADE"))
    expires_at: Mapped[int] = mapped_column(BigInteger)
