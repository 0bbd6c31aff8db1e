"""Access tokens: JWTs of the RFC 9068 profile, issued and verified."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from auth.compact import (
    EXPIRY_LEEWAY_SECONDS,
    Key,
    Members,
    name,
    prebuilt,
    read_header,
    refusing_all_else,
    require,
    require_audience,
    require_times,
    sign,
    split,
    strict_json,
    verify_signature,
)
from auth.errors import Reason, ScopeInvalid, TokenInvalid
from auth.keys import ALGORITHM, KeySource
from auth.roles import PERSON
from auth.scopes import Scope, format_scopes, parse_scopes

# The console, through which people call: a public client of RFC 6749, section 2.1, that every installation has.
CONSOLE = "sluice-console"
THUMBPRINT = "x5t#S256"
MOST_BUILT = 16

_KID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SHA_256 = re.compile(r"[A-Za-z0-9_-]{43}")
_TYPES = {"at+jwt", "application/at+jwt"}

Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says; times in whole seconds since 1970.

    `client_id` is whose token it is: a client or a person; of another `issuer` than ourselves, as that one calls them.
    `family` is the sign-in that it came of, `thumbprint` the certificate that it is bound to (RFC 8705).
    """

    client_id: str
    scopes: frozenset[Scope]
    token_id: str
    issued_at: int
    expires_at: int
    key_id: str = ""
    issuer: str = ""
    family: str | None = None
    thumbprint: str | None = None


class Verifier:
    """Verifies access tokens as RFC 9068, section 4, and RFC 8725 (and its successor's draft) demand."""

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str,
        audience: str,
        max_seconds: int,
        clock: Clock = time.time,
    ) -> None:
        self._keys = keys
        self._built = _Built()
        self._issuer = issuer
        self._audience = audience
        self._max_seconds = max_seconds
        self._clock = clock

    def verify(self, token: str) -> Claims:
        """The claims of a valid token; raises TokenInvalid for anything else, whatever it is."""
        with refusing_all_else():
            payload, kid = self._verified(token)
            return self._claims(strict_json(payload), kid)

    def current(self, claims: Claims) -> bool:
        """Whether claims verified earlier have not expired since."""
        return claims.expires_at > self._clock() - EXPIRY_LEEWAY_SECONDS

    def trusts(self, claims: Claims) -> bool:
        """Whether the key that signed claims verified earlier has not been withdrawn since."""
        return self._keys.ring.verifying(claims.key_id) is not None

    def _verified(self, token: str) -> tuple[bytes, str]:
        header, payload, _ = split(token)
        kid, algorithm, key = self._key_of(header)
        verify_signature(token, key, algorithm)
        return payload, kid

    def _key_of(self, encoded_header: bytes) -> tuple[str, str, Key]:
        header = read_header(encoded_header)
        kind, kid = header.get("typ"), header.get("kid")
        require(isinstance(kind, str) and kind.lower() in _TYPES, Reason.HEADER)
        if not isinstance(kid, str) or not _KID.fullmatch(kid):
            raise TokenInvalid(reason=Reason.HEADER)
        found = self._keys.ring.verifying(kid)
        if found is None:
            raise TokenInvalid(reason=Reason.KEY_UNKNOWN)
        require(header.get("alg") == found.algorithm, Reason.HEADER)
        return kid, found.algorithm, self._built.key(kid, found.key)

    def _claims(self, payload: Members, kid: str) -> Claims:
        require(payload.get("iss") == self._issuer, Reason.ISSUER)
        require_audience(payload, (self._audience,))
        issued_at, expires_at = require_times(payload, self._clock(), self._max_seconds)
        client_id, identity = name(payload, "client_id"), name(payload, "sub")
        # A client acts for itself only: RFC 9068, section 2.2, wants `sub` to be the client then.
        by_console = client_id == CONSOLE and identity.startswith(PERSON)
        require(by_console or identity == client_id, Reason.CLAIMS)
        return Claims(
            identity,
            _scopes(payload.get("scope")),
            name(payload, "jti"),
            issued_at,
            expires_at,
            kid,
            family=name(payload, "sid") if "sid" in payload else None,
            thumbprint=thumbprint_of(payload),
        )


class Issuer:
    """Issues access tokens, each signed with the key whose time it is."""

    def __init__(self, keys: KeySource, *, issuer: str, audience: str, seconds: int, clock: Clock = time.time) -> None:
        # Raises KeysInvalid: what must not sign is found when a gateway starts, not with its first token.
        prebuilt(ec.generate_private_key(ec.SECP256R1()), ALGORITHM)
        self._keys = keys
        self._built = _Built()
        self._issuer = issuer
        self._audience = audience
        self._seconds = seconds
        self._clock = clock

    def issue(
        self,
        identity_id: str,
        scopes: Collection[Scope],
        *,
        issued_at: int | None = None,
        family: str | None = None,
        thumbprint: str | None = None,
        seconds: int | None = None,
    ) -> tuple[str, int]:
        """A new token for a client or a person, and the seconds until it expires: as many as ever, or `seconds` if
        that is sooner.

        `issued_at` is in seconds since 1970. Given from the database's clock, it can be compared with the moment of a
        revocation, which that clock tells as well. `family` is the sign-in, or the session, that a person's token
        belongs to. With the `thumbprint` of a TLS certificate the token is good on connections with that certificate
        only (RFC 8705, section 3.1).
        """
        issued = int(self._clock()) if issued_at is None else issued_at
        lasts = self._seconds if seconds is None else min(self._seconds, seconds)
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": identity_id,
            "client_id": CONSOLE if identity_id.startswith(PERSON) else identity_id,
            "scope": format_scopes(scopes),
            "jti": secrets.token_urlsafe(16),
            "iat": issued,
            "nbf": issued,
            "exp": issued + lasts,
            **({} if family is None else {"sid": family}),
            **({} if thumbprint is None else {"cnf": {THUMBPRINT: thumbprint}}),
        }
        signing = self._keys.ring.signing
        headers = {"typ": "at+jwt", "kid": signing.public.kid}
        key = self._built.key(signing.public.kid, signing.key)
        return sign(claims, key, headers, ALGORITHM), lasts


def thumbprint_of(payload: Members) -> str | None:
    """The certificate that a token is bound to; None where it is bound to nothing. Raises TokenInvalid.

    Whatever else a token may be bound to (RFC 7800) cannot be checked here, so it is refused.
    """
    if "cnf" not in payload:
        return None
    confirmed = payload["cnf"]
    if not isinstance(confirmed, dict) or confirmed.keys() != {THUMBPRINT}:
        raise TokenInvalid(reason=Reason.CLAIMS)
    thumbprint = confirmed[THUMBPRINT]
    if not isinstance(thumbprint, str) or not _SHA_256.fullmatch(thumbprint):
        raise TokenInvalid(reason=Reason.CLAIMS)
    return thumbprint


class _Built:
    """Keys as the library wants them, made once each; a few, since a ring has few and they are asked for by turns."""

    def __init__(self) -> None:
        self._keys: dict[str, Key] = {}

    def key(self, kid: str, key: object) -> Key:
        """`kid` is a key's thumbprint, so the same name is the same key."""
        built = self._keys.get(kid)
        if built is None:
            if len(self._keys) >= MOST_BUILT:
                self._keys.clear()
            built = self._keys[kid] = prebuilt(key, ALGORITHM)
        return built


def _scopes(value: object) -> frozenset[Scope]:
    if not isinstance(value, str):
        raise TokenInvalid(reason=Reason.CLAIMS)
    try:
        return parse_scopes(value)
    except ScopeInvalid:
        raise TokenInvalid(reason=Reason.CLAIMS) from None
