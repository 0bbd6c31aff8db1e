"""Signed JSON in compact form (RFC 7515, section 7.1), read strictly; the only place that knows `jose`.

`jose.jwt.decode` of python-jose 3.5.0 accepts tokens without `aud` or `exp`, ignores `crit`, takes the last of two
equal claims and dies of deep JSON before any key is asked. So only its signature check is used, on what a strict
reading has let through.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import TypeAlias

from jose import jwk, jws
from jose.backends.base import Key as JoseKey
from jose.backends.cryptography_backend import CryptographyECKey, CryptographyRSAKey
from jose.exceptions import JWSError

from auth.errors import KeysInvalid, Reason, TokenInvalid

MOST_CHARACTERS = 8192
MOST_HEADER_BYTES = 2048
MOST_BRACKETS = 8
EXPIRY_LEEWAY_SECONDS = 30
ISSUED_LEEWAY_SECONDS = 60
# An allow-list: `crit`, `b64`, `jku`, `jwk`, `x5u`, `x5c`, `zip`, `enc` and what comes next are all refused.
HEADER_MEMBERS = frozenset({"alg", "kid", "typ"})

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_NAME = re.compile(r"[\x21-\x7e]{1,128}")

Members: TypeAlias = Mapping[str, object]
Key: TypeAlias = JoseKey


def split(token: str) -> tuple[bytes, bytes, bytes]:
    """Header, payload and signature, decoded.

    Raises TokenInvalid for any other serialisation and any other spelling of the same bytes.
    """
    require(len(token) <= MOST_CHARACTERS, Reason.TOO_LONG)
    segments = _COMPACT.fullmatch(token)
    if segments is None:
        raise TokenInvalid(reason=Reason.MALFORMED)
    header, payload, signature = (_canonical(segment) for segment in segments.groups())
    return header, payload, signature


def read_header(encoded: bytes, members: Collection[str] = HEADER_MEMBERS) -> Members:
    """A header that has none but these members; raises TokenInvalid, ValueError."""
    require(len(encoded) <= MOST_HEADER_BYTES, Reason.HEADER)
    header = strict_json(encoded)
    require(header.keys() <= set(members), Reason.HEADER)
    return header


def strict_json(data: bytes, most_brackets: int = MOST_BRACKETS) -> Members:
    """An object without repeated members, NaN or deep nesting; raises ValueError (also UnicodeDecodeError)."""
    text = data.decode("utf-8")
    # Our own tokens have one or two brackets. Counting bounds the depth before a parser descends into it.
    if text.count("[") + text.count("{") > most_brackets:
        raise ValueError("too many brackets")
    document = json.loads(text, object_pairs_hook=_without_repetition, parse_constant=_no_constant)
    if not isinstance(document, dict):
        raise ValueError("not an object")  # noqa: TRY004 - one kind of error for whatever is wrong with the text
    return document


def verify_signature(token: str, key: Key, algorithm: str) -> None:
    """Raises TokenInvalid where the key did not sign the token with this very algorithm."""
    try:
        # One algorithm, as a list (a str would be searched for substrings), and a prebuilt key object, never text.
        jws.verify(token, key, algorithms=[algorithm])
    except JWSError:
        raise TokenInvalid(reason=Reason.SIGNATURE) from None


def sign(claims: Members, key: Key, headers: Mapping[str, str], algorithm: str) -> str:
    """The claims, signed, in compact form."""
    return str(jws.sign(dict(claims), key, headers=dict(headers), algorithm=algorithm))


def prebuilt(key: object, algorithm: str) -> Key:
    """A key of the package `cryptography` as `jose` wants it; raises KeysInvalid."""
    built = jwk.construct(key, algorithm)
    # The package `ecdsa`, installed beside it, leaks keys by its timing (CVE-2024-23342) and will not be mended.
    if not isinstance(built, CryptographyECKey | CryptographyRSAKey):
        raise KeysInvalid(f"python-jose signs with {type(built).__module__}: install python-jose[cryptography]")
    return built


@contextlib.contextmanager
def refusing_all_else() -> Iterator[None]:
    """Makes a TokenInvalid of whatever a hostile text raises while it is read."""
    try:
        yield
    except TokenInvalid:
        raise
    except Exception:  # noqa: BLE001 - RecursionError, OverflowError, TypeError and JWKError have all been seen here
        # Not chained: the cause's text may hold parts of the token.
        raise TokenInvalid(reason=Reason.MALFORMED) from None


def require(held: bool, reason: Reason) -> None:
    """Raises TokenInvalid for that reason unless it held."""
    if not held:
        raise TokenInvalid(reason=reason)


def require_times(claims: Members, now: float, most_seconds: int) -> tuple[int, int]:
    """`iat` and `exp` of something that is valid now and lives no longer than that; raises TokenInvalid."""
    issued_at, expires_at = whole(claims, "iat"), whole(claims, "exp")
    require(issued_at <= now + ISSUED_LEEWAY_SECONDS, Reason.NOT_YET_VALID)
    require(expires_at > now - EXPIRY_LEEWAY_SECONDS, Reason.EXPIRED)
    require(0 < expires_at - issued_at <= most_seconds, Reason.LIFETIME)
    if "nbf" in claims:
        require(whole(claims, "nbf") <= now + EXPIRY_LEEWAY_SECONDS, Reason.NOT_YET_VALID)
    return issued_at, expires_at


def require_audience(claims: Members, ours: Collection[str]) -> None:
    """Raises TokenInvalid unless `aud` is one of ours, or a list of texts with one of ours."""
    audience = claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    for_us = all(isinstance(entry, str) for entry in listed) and any(entry in ours for entry in listed)
    require(for_us, Reason.AUDIENCE)


def whole(claims: Members, claim: str) -> int:
    """A claim that is a whole number; raises TokenInvalid."""
    value = claims.get(claim)
    if type(value) is not int:  # not isinstance: true and false are ints to Python
        raise TokenInvalid(reason=Reason.CLAIMS)
    return value


def name(claims: Members, claim: str) -> str:
    """A claim that is a text of 1 to 128 visible ASCII characters; raises TokenInvalid."""
    value = claims.get(claim)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise TokenInvalid(reason=Reason.CLAIMS)
    return value


def _canonical(segment: str) -> bytes:
    # Decoders ignore the last characters' unused bits; with them, one token would have several spellings.
    data = base64.urlsafe_b64decode(segment + "=" * (-len(segment) % 4))
    require(base64.urlsafe_b64encode(data).rstrip(b"=") == segment.encode(), Reason.MALFORMED)
    return data


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member appears twice")
    return members


def _no_constant(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
