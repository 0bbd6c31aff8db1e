"""Signing keys: ES256 keys as PEM files in a folder that only the gateway reads.

`signing.pem` signs; every other `*.pem` only verifies. So a key is rotated without a gap by three moves, each followed
by a restart: lay the new key beside it as `next.pem`; when everybody knows it, rename `signing.pem` to `retiring.pem`
and `next.pem` to `signing.pem`; when the last token of the old key has expired, delete `retiring.pem`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from auth.errors import KeysInvalid

ALGORITHM = "ES256"
SIGNING_FILE = "signing.pem"
MOST_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What verifies a token; `kid` is the key's RFC 7638 thumbprint, `algorithm` the only one that it is used with."""

    kid: str
    algorithm: str
    key: ec.EllipticCurvePublicKey

    def jwk(self) -> dict[str, str]:
        """The key as RFC 7517 writes it; public members only."""
        return {**_coordinates(self.key), "kid": self.kid, "use": "sig", "alg": self.algorithm}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What signs tokens."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    public: PublicKey


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The key that signs, and all that verify, by `kid`."""

    signing: SigningKey
    public: Mapping[str, PublicKey]

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The JWK Set (RFC 7517, section 5) that `/.well-known/jwks.json` publishes."""
        return {"keys": [key.jwk() for key in self.public.values()]}


def load_keys(folder: Path) -> KeyRing:
    """Reads the folder's keys; makes folder and key where there is none yet. Raises KeysInvalid.

    Of several gateways that start at once on one empty folder, all end with the key of one of them.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        # Whoever can put a file here can sign tokens.
        raise KeysInvalid(f"{folder} may be written to by others: chmod 700 it")
    signing_path = folder / SIGNING_FILE
    if not signing_path.exists():
        _make_key(signing_path)
    signing = _read_key(signing_path)
    verifying = [_read_key(path).public for path in sorted(folder.glob("*.pem")) if path != signing_path]
    return KeyRing(signing, {key.kid: key for key in (signing.public, *verifying)})


def thumbprint(key: ec.EllipticCurvePublicKey) -> str:
    """The RFC 7638 thumbprint of a P-256 key: SHA-256, base64url without padding."""
    canonical = json.dumps(_coordinates(key), separators=(",", ":"), sort_keys=True)
    return _base64url(hashlib.sha256(canonical.encode()).digest())


def require_private(path: Path, found: os.stat_result) -> None:
    """Raises KeysInvalid where somebody else may read or write a key, or put it there.

    As PostgreSQL has it: our own file is for us alone; root's, as orchestrators mount secrets, our group may read.
    """
    own = os.geteuid()
    if found.st_uid not in (own, 0):
        raise KeysInvalid(f"{path} belongs to somebody else (uid {found.st_uid})")
    forbidden = 0o077 if found.st_uid == own else 0o027
    if found.st_mode & forbidden:
        raise KeysInvalid(f"{path} may be read by others: chmod 600 it")


def _make_key(path: Path) -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")  # mode 600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        # A link, unlike a rename, fails where the name exists: the first key stays, and it is whole when it appears.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        os.unlink(temporary)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _read_key(path: Path) -> SigningKey:
    with path.open("rb") as file:
        require_private(path, os.fstat(file.fileno()))
        pem = file.read(MOST_BYTES)
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeysInvalid(f"{path} is not an unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise KeysInvalid(f"{path} is not a P-256 key, as {ALGORITHM} needs it")
    public = key.public_key()
    return SigningKey(key, PublicKey(thumbprint(public), ALGORITHM, public))


def _coordinates(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    x, y = (_base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
