"""The SQL tables of signing keys: those of tokens and receipts, and those of bundles."""

from __future__ import annotations

from sqlalchemy import BigInteger, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from model_store.database import Base


class StoredKey(Base):
    """A signing key; times are in milliseconds since 1970 by the database's clock."""

    __tablename__ = "signing_keys"

    kid: Mapped[str] = mapped_column(String(64), primary_key=True)  # the RFC 7638 thumbprint
    public: Mapped[bytes] = mapped_column(LargeBinary)  # SubjectPublicKeyInfo, DER
    # Sealed for this very key, and nothing inside: only who has the master key can have put the row here.
    voucher: Mapped[bytes] = mapped_column(LargeBinary)
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)  # PKCS #8, sealed; gone when its time is over
    created_at: Mapped[int] = mapped_column(BigInteger)
    signs_from: Mapped[int] = mapped_column(BigInteger)
    verifies_until: Mapped[int | None] = mapped_column(BigInteger)
    # Withdrawn, or said to be compromised: whatever it signed, at whatever time, proves nothing any more.
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)


class BundleKey(Base):
    """An Ed25519 key that signs bundles; times are in milliseconds since 1970 by the database's clock."""

    __tablename__ = "bundle_keys"

    kid: Mapped[str] = mapped_column(String(64), primary_key=True)  # the RFC 7638 thumbprint
    public: Mapped[bytes] = mapped_column(LargeBinary)  # 32 bytes, RFC 8032
    voucher: Mapped[bytes] = mapped_column(LargeBinary)  # as of a signing key
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)  # 32 bytes, sealed; gone when another one signs
    created_at: Mapped[int] = mapped_column(BigInteger)
    ended_at: Mapped[int | None] = mapped_column(BigInteger)  # when the next one took over
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)  # compromised: nothing that it signed proves anything
