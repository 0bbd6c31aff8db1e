"""SQL tables of tokens: refresh tokens and their families, revoked tokens, assertions, keys and foreign identities."""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base, now_ms


class TokenFamily(Base):
    """All tokens that came of one sign-in; revoked as a whole. Its id is the claim `sid` of its access tokens."""

    __tablename__ = "token_families"
    __table_args__ = (Index("token_families_by_identity", "identity_id"), Index("token_families_by_end", "ends_at"))

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    identity_id: Mapped[str] = mapped_column(String(64))  # usr_…
    scopes: Mapped[str] = mapped_column(String(512))  # the most that its access tokens may have
    idle_seconds: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    ends_at: Mapped[int] = mapped_column(BigInteger)  # however often it was refreshed
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class RefreshToken(Base):
    """A refresh token, which is good for one use. Used ones are kept: one that comes back was stolen."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (Index("refresh_tokens_by_family", "family"),)

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 in hexadecimal: the text has 256 bits
    family: Mapped[str] = mapped_column(ForeignKey("token_families.id", ondelete="CASCADE"))
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())
    expires_at: Mapped[int] = mapped_column(BigInteger)
    used_at: Mapped[int | None] = mapped_column(BigInteger)


class RevokedToken(Base):
    """An access token (by `jti`) or a family (by `sid`) that every gateway refuses until it would have expired."""

    __tablename__ = "revoked_tokens"
    __table_args__ = (
        Index("revoked_tokens_by_identity", "identity_id"),
        Index("revoked_tokens_by_expiry", "expires_at"),
    )

    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    identity_id: Mapped[str] = mapped_column(String(64))
    expires_at: Mapped[int] = mapped_column(BigInteger)


class UsedAssertion(Base):
    """An assertion by which a client authenticated; kept until it expires, so that no gateway accepts it again."""

    __tablename__ = "used_assertions"
    __table_args__ = (Index("used_assertions_by_expiry", "expires_at"),)

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)  # SHA-256 of client and jti
    expires_at: Mapped[int] = mapped_column(BigInteger)


class ClientKey(Base):
    """A public key with which a client signs assertions."""

    __tablename__ = "client_keys"

    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"), primary_key=True)
    kid: Mapped[str] = mapped_column(String(128), primary_key=True)
    algorithm: Mapped[str] = mapped_column(String(8))
    jwk: Mapped[str] = mapped_column(Text)  # RFC 7517, public members only
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


class ClientIdentity(Base):
    """Whom another issuer's tokens stand for: the value of its client claim, and the client that this is here."""

    __tablename__ = "client_identities"
    __table_args__ = (Index("client_identities_by_client", "client_id"),)

    issuer: Mapped[str] = mapped_column(String(256), primary_key=True)
    subject: Mapped[str] = mapped_column(String(256), primary_key=True)
    client_id: Mapped[str] = mapped_column(ForeignKey("clients.id", ondelete="CASCADE"))
