"""Access tokens: JWTs of the RFC 9068 profile, issued and verified; the only place that knows `jose`.

`jose.jwt.decode` of python-jose 3.5.0 accepts tokens without `aud` or `exp`, ignores `crit`, takes the last of two
equal claims and dies of deep JSON before any key is asked. So only its signature check is used, on what a strict
reading has let through.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from jose import jwk, jws
from jose.backends.base import Key
from jose.backends.cryptography_backend import CryptographyECKey
from jose.exceptions import JWSError

from auth.errors import KeysInvalid, Reason, ScopeInvalid, TokenInvalid
from auth.keys import ALGORITHM, PublicKey, SigningKey
from auth.scopes import Scope, format_scopes, parse_scopes

MOST_CHARACTERS = 8192
MOST_HEADER_BYTES = 2048
MOST_BRACKETS = 8
EXPIRY_LEEWAY_SECONDS = 30
ISSUED_LEEWAY_SECONDS = 60

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_KID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[\x21-\x7e]{1,128}")
_HEADER_MEMBERS = {"alg", "kid", "typ"}
_TYPES = {"at+jwt", "application/at+jwt"}

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says; times in whole seconds since 1970."""

    client_id: str
    scopes: frozenset[Scope]
    token_id: str
    issued_at: int
    expires_at: int


class Verifier:
    """Verifies access tokens as RFC 9068, section 4, and RFC 8725 (and its successor's draft) demand."""

    def __init__(
        self,
        public_keys: Mapping[str, PublicKey],
        *,
        issuer: str,
        audience: str,
        max_seconds: int,
        clock: Clock = time.time,
    ) -> None:
        self._keys = {kid: (key.algorithm, _prebuilt(key.key, key.algorithm)) for kid, key in public_keys.items()}
        self._issuer = issuer
        self._audience = audience
        self._max_seconds = max_seconds
        self._clock = clock

    def verify(self, token: str) -> Claims:
        """The claims of a valid token; raises TokenInvalid for anything else, whatever it is."""
        try:
            return self._claims(_strict_json(self._verified_payload(token)))
        except TokenInvalid:
            raise
        except Exception:  # noqa: BLE001 - RecursionError, OverflowError, TypeError and JWKError have all been seen here
            # Not chained: the cause's text may hold parts of the token.
            raise TokenInvalid(reason=Reason.MALFORMED) from None

    def current(self, claims: Claims) -> bool:
        """Whether claims verified earlier have not expired since."""
        return claims.expires_at > self._clock() - EXPIRY_LEEWAY_SECONDS

    def _verified_payload(self, token: str) -> bytes:
        header, payload, _ = split(token)
        algorithm, key = self._key_of(header)
        verify_signature(token, key, algorithm)
        return payload

    def _key_of(self, encoded_header: bytes) -> tuple[str, CryptographyECKey]:
        _require(len(encoded_header) <= MOST_HEADER_BYTES, Reason.HEADER)
        header = _strict_json(encoded_header)
        # An allow-list: `crit`, `b64`, `jku`, `jwk`, `x5u`, `x5c`, `zip`, `enc` and what comes next are all refused.
        _require(header.keys() <= _HEADER_MEMBERS, Reason.HEADER)
        kind, kid = header.get("typ"), header.get("kid")
        _require(isinstance(kind, str) and kind.lower() in _TYPES, Reason.HEADER)
        if not isinstance(kid, str) or not _KID.fullmatch(kid):
            raise TokenInvalid(reason=Reason.HEADER)
        found = self._keys.get(kid)
        if found is None:
            raise TokenInvalid(reason=Reason.KEY_UNKNOWN)
        _require(header.get("alg") == found[0], Reason.HEADER)
        return found

    def _claims(self, payload: Mapping[str, object]) -> Claims:
        now = self._clock()
        _require(payload.get("iss") == self._issuer, Reason.ISSUER)
        audience = payload.get("aud")
        listed = audience if isinstance(audience, list) else [audience]
        _require(all(isinstance(entry, str) for entry in listed) and self._audience in listed, Reason.AUDIENCE)
        issued_at, expires_at = _whole(payload, "iat"), _whole(payload, "exp")
        _require(issued_at <= now + ISSUED_LEEWAY_SECONDS, Reason.NOT_YET_VALID)
        _require(expires_at > now - EXPIRY_LEEWAY_SECONDS, Reason.EXPIRED)
        _require(0 < expires_at - issued_at <= self._max_seconds, Reason.LIFETIME)
        if "nbf" in payload:
            _require(_whole(payload, "nbf") <= now + EXPIRY_LEEWAY_SECONDS, Reason.NOT_YET_VALID)
        client_id = _name(payload, "client_id")
        # A client acts for itself only: RFC 9068, section 2.2, wants `sub` to be the client then.
        _require(_name(payload, "sub") == client_id, Reason.CLAIMS)
        return Claims(client_id, _scopes(payload.get("scope")), _name(payload, "jti"), issued_at, expires_at)


class Issuer:
    """Issues access tokens signed with one key."""

    def __init__(self, key: SigningKey, *, issuer: str, audience: str, seconds: int, clock: Clock = time.time) -> None:
        self._key = _prebuilt(key.key, key.public.algorithm)
        self._headers = {"typ": "at+jwt", "kid": key.public.kid}
        self._issuer = issuer
        self._audience = audience
        self._seconds = seconds
        self._clock = clock

    def issue(self, client_id: str, scopes: Collection[Scope], *, issued_at: int | None = None) -> tuple[str, int]:
        """A new token and the seconds until it expires.

        `issued_at` is in seconds since 1970. Given from the database's clock, it can be compared with the moment of a
        revocation, which that clock tells as well.
        """
        issued = int(self._clock()) if issued_at is None else issued_at
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": client_id,
            "client_id": client_id,
            "scope": format_scopes(scopes),
            "jti": secrets.token_urlsafe(16),
            "iat": issued,
            "nbf": issued,
            "exp": issued + self._seconds,
        }
        return str(jws.sign(claims, self._key, headers=self._headers, algorithm=ALGORITHM)), self._seconds


def split(token: str) -> tuple[bytes, bytes, bytes]:
    """Header, payload and signature of a JWS in compact serialisation (RFC 7515, section 7.1), decoded.

    Raises TokenInvalid for any other serialisation and any other spelling of the same bytes.
    """
    _require(len(token) <= MOST_CHARACTERS, Reason.TOO_LONG)
    segments = _COMPACT.fullmatch(token)
    if segments is None:
        raise TokenInvalid(reason=Reason.MALFORMED)
    header, payload, signature = (_canonical(segment) for segment in segments.groups())
    return header, payload, signature


def verify_signature(token: str, key: Key, algorithm: str) -> None:
    """Raises TokenInvalid where the key did not sign the token with this very algorithm."""
    try:
        # One algorithm, as a list (a str would be searched for substrings), and a prebuilt key object, never text.
        jws.verify(token, key, algorithms=[algorithm])
    except JWSError:
        raise TokenInvalid(reason=Reason.SIGNATURE) from None


def _prebuilt(key: object, algorithm: str) -> CryptographyECKey:
    built = jwk.construct(key, algorithm)
    # The package `ecdsa`, installed beside it, leaks keys by its timing (CVE-2024-23342) and will not be mended.
    if not isinstance(built, CryptographyECKey):
        raise KeysInvalid(f"python-jose signs with {type(built).__module__}: install python-jose[cryptography]")
    return built


def _require(held: bool, reason: Reason) -> None:
    if not held:
        raise TokenInvalid(reason=reason)


def _canonical(segment: str) -> bytes:
    # Decoders ignore the last characters' unused bits; with them, one token would have several spellings.
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    _require(base64.urlsafe_b64encode(data).rstrip(b"=") == segment.encode(), Reason.MALFORMED)
    return data


def _strict_json(data: bytes) -> dict[str, object]:
    text = data.decode("utf-8")
    # Our own tokens have one bracket. Counting bounds the depth before a parser descends into it.
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        raise ValueError("too many brackets")
    document = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_constant)
    if not isinstance(document, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for whatever is wrong with the text
    return document


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    return members


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _whole(payload: Mapping[str, object], claim: str) -> int:
    value = payload.get(claim)
    if type(value) is not int:  # not isinstance: true and false are ints to Python
        raise TokenInvalid(reason=Reason.CLAIMS)
    return value


def _name(payload: Mapping[str, object], claim: str) -> str:
    value = payload.get(claim)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise TokenInvalid(reason=Reason.CLAIMS)
    return value


def _scopes(value: object) -> frozenset[Scope]:
    if not isinstance(value, str):
        raise TokenInvalid(reason=Reason.CLAIMS)
    try:
        return parse_scopes(value)
    except ScopeInvalid:
        raise TokenInvalid(reason=Reason.CLAIMS) from None
