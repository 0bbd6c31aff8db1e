"""Signed uploads: a detached Ed25519 signature that says which file is meant for which model, and by whose key.

A signature travels as `<key id>.<signature>`, both in base64url; a key's id is its RFC 7638 thumbprint in the form of
RFC 8037, appendix A.3. It covers the model's name and the file's SHA-256, so that a signed file cannot be uploaded as
something else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import BigInteger, LargeBinary, String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from model_store.database import Base, now_ms
from model_store.errors import SluiceError
from model_store.registry import check_name

SIGNATURE = re.compile(r"([A-Za-z0-9_-]{43})\.([A-Za-z0-9_-]{86})")
PUBLIC_BYTES = 32


class UploadKey(Base):
    """A key whose signatures on uploads are believed."""

    __tablename__ = "upload_keys"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    name: Mapped[str] = mapped_column(String(128), unique=True)
    public: Mapped[bytes] = mapped_column(LargeBinary)  # 32 bytes, RFC 8032
    created_at: Mapped[int] = mapped_column(BigInteger, server_default=now_ms())


class SignatureInvalid(SluiceError):
    """Not a signature, by no key that is believed, or over something else."""

    status = 422
    code = "signature_invalid"


class SignatureMissing(SluiceError):
    status = 422
    code = "signature_missing"


class UploadKeyInvalid(SluiceError):
    status = 422
    code = "upload_key_invalid"


class UploadKeyExists(SluiceError):
    status = 409
    code = "upload_key_exists"


class UploadKeyNotFound(SluiceError):
    status = 404
    code = "upload_key_not_found"


def signed_text(model: str, digest: str) -> bytes:
    """What is signed for a file with this SHA-256, in hexadecimal, uploaded as a version of this model."""
    return f"sluice upload v1\n{model}\n{digest}\n".encode()


def sign(key: Ed25519PrivateKey, model: str, digest: str) -> str:
    """The signature as an upload carries it."""
    signature = key.sign(signed_text(model, digest))
    return f"{key_id(_raw(key.public_key()))}.{_base64url(signature)}"


def verify(session: Session, text: str, model: str, digest: str) -> str:
    """The id of the key that signed this file for this model; raises SignatureInvalid, alike whatever is wrong."""
    found = SIGNATURE.fullmatch(text)
    key = session.get(UploadKey, found[1]) if found is not None else None
    if found is None or key is None:
        raise _invalid()
    try:
        signature = base64.urlsafe_b64decode(found[2] + "==")
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, signed_text(model, digest))
    except (InvalidSignature, ValueError):
        raise _invalid() from None
    return key.id


def add_key(session: Session, name: str, public: str) -> UploadKey:
    """Believes a key from now on; `public` is its 32 bytes in base64url.

    Raises NameInvalid, UploadKeyInvalid, and UploadKeyExists where the name or the key is known.
    """
    try:
        raw = base64.b64decode(public + "=" * (-len(public) % 4), b"-_", validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except ValueError:
        raise UploadKeyInvalid("an upload key is the 32 bytes of an Ed25519 public key in base64url") from None
    known = select(UploadKey.id).where((UploadKey.name == check_name(name, "key")) | (UploadKey.id == key_id(raw)))
    if session.scalars(known).first() is not None:
        raise UploadKeyExists("there is a key with this name, or this key has a name already")
    key = UploadKey(id=key_id(raw), name=name, public=raw)
    session.add(key)
    session.flush()
    session.refresh(key)
    return key


def remove_key(session: Session, key_id: str) -> None:
    """Believes a key no longer; versions that it signed stay. Raises UploadKeyNotFound."""
    key = session.get(UploadKey, key_id)
    if key is None:
        raise UploadKeyNotFound("there is no such upload key")
    session.delete(key)
    session.flush()


def all_keys(session: Session) -> Sequence[UploadKey]:
    """The keys that are believed, by name."""
    return session.scalars(select(UploadKey).order_by(UploadKey.name)).all()


def key_id(public: bytes) -> str:
    """The RFC 7638 thumbprint of an Ed25519 public key."""
    text = f'{{"crv":"Ed25519","kty":"OKP","x":"{_base64url(public)}"}}'
    return _base64url(hashlib.sha256(text.encode()).digest())


def public_text(key: Ed25519PrivateKey) -> str:
    """The public key as `add_key` takes it."""
    return _base64url(_raw(key.public_key()))


def _raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def _invalid() -> SignatureInvalid:
    return SignatureInvalid(
        "the signature is not one of a known upload key over this file and model; "
        "`sluice models push --sign-with` makes one"
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
