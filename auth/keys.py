"""Signing keys as processes hold them: which key signs now, and which keys verify, by their RFC 7638 thumbprints."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from auth.errors import KeysInvalid, KeysUnavailable

ALGORITHM = "ES256"
WAIT_SECONDS = 2


@dataclass(frozen=True, slots=True)
class PublicKey:
    """What verifies a token; `kid` is the key's RFC 7638 thumbprint, `algorithm` the only one that it is used with."""

    kid: str
    algorithm: str
    key: ec.EllipticCurvePublicKey

    @classmethod
    def of(cls, key: ec.EllipticCurvePublicKey) -> PublicKey:
        """A P-256 key under its thumbprint."""
        return cls(thumbprint(key), ALGORITHM, key)

    def jwk(self) -> dict[str, str]:
        """The key as RFC 7517 writes it; public members only."""
        return {**_coordinates(self.key), "kid": self.kid, "use": "sig", "alg": self.algorithm}


@dataclass(frozen=True, slots=True)
class SigningKey:
    """What signs tokens."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)
    public: PublicKey


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A key and its times, in milliseconds since 1970; `private` is None where this process cannot open it."""

    public: PublicKey
    private: ec.EllipticCurvePrivateKey | None = field(repr=False)
    signs_from: int = 0
    verifies_until: int | None = None


class KeyRing:
    """All keys of one moment; never changed, replaced as a whole.

    The newest key whose time has come signs. So every process goes over to a new key at the moment that was written
    down with it, long after each has read it.
    """

    def __init__(
        self, keys: Iterable[HeldKey], ended: Iterable[str] = (), *, clock: Callable[[], float] = time.time
    ) -> None:
        self._keys = sorted(keys, key=lambda held: held.signs_from, reverse=True)
        self._by_kid = {held.public.kid: held for held in self._keys}
        self._ended = frozenset(ended)
        self._clock = clock

    @property
    def signing(self) -> SigningKey:
        """The key that signs now; raises KeysUnavailable where there is none, as for seconds after a compromise."""
        now = self._clock() * 1000
        for held in self._keys:
            if held.private is not None and held.signs_from <= now and _verifies(held, now):
                return SigningKey(held.private, held.public)
        raise KeysUnavailable("there is no signing key at this moment", retry_after_seconds=WAIT_SECONDS)

    @property
    def own(self) -> frozenset[str]:
        """Names of the keys whose private parts this process could open: nobody else can have put them there."""
        return frozenset(held.public.kid for held in self._keys if held.private is not None)

    @property
    def ever(self) -> frozenset[str]:
        """Names of all keys that are or were this installation's: for what was signed long ago."""
        return frozenset(self._by_kid) | self._ended

    def verifying(self, kid: str) -> PublicKey | None:
        """The key of this name, if tokens that it signed are still good."""
        held = self._by_kid.get(kid)
        return held.public if held is not None and _verifies(held, self._clock() * 1000) else None

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The JWK Set of RFC 7517: all keys that verify, also those that are yet to sign."""
        now = self._clock() * 1000
        return {"keys": [held.public.jwk() for held in self._keys if _verifies(held, now)]}


class KeySource(Protocol):
    """Where the ring of this moment is found."""

    @property
    def ring(self) -> KeyRing: ...


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


def _verifies(held: HeldKey, now_ms: float) -> bool:
    return held.verifies_until is None or held.verifies_until > now_ms


def _coordinates(key: ec.EllipticCurvePublicKey) -> dict[str, str]:
    numbers = key.public_numbers()
    x, y = (_base64url(number.to_bytes(32, "big")) for number in (numbers.x, numbers.y))
    return {"crv": "P-256", "kty": "EC", "x": x, "y": y}


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
