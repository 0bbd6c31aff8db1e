"""Access tokens of other issuers, verified as strictly as our own, and told apart from them by `iss` alone.

What such a token may do is decided here: its claim names one of our clients, and its scopes are cut to that client's.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from auth.compact import (
    EXPIRY_LEEWAY_SECONDS,
    HEADER_MEMBERS,
    Members,
    name,
    read_header,
    refusing_all_else,
    require,
    require_audience,
    require_times,
    split,
    strict_json,
    verify_signature,
)
from auth.errors import Reason, TokenInvalid
from auth.keys import KeySource
from auth.public_keys import VerifyingKey
from auth.remote_keys import RemoteKeys
from auth.scopes import Scope, known_scopes
from auth.tokens import Claims, Clock, Verifier, thumbprint_of
from auth.trusted_issuers import TrustedIssuer

# Roles come as lists within objects, one for each client of a realm.
MOST_BRACKETS = 64
# Thumbprints of certificates, which name a key as `kid` does and lead nowhere.
MEMBERS = HEADER_MEMBERS | {"x5t", "x5t#S256"}


class ForeignIssuer:
    """One other issuer and its keys."""

    def __init__(self, trusted: TrustedIssuer, keys: RemoteKeys, clock: Clock = time.time) -> None:
        self.trusted = trusted
        self.keys = keys
        self._clock = clock
        self._types = trusted.media_types

    def verify(self, token: str) -> Claims:
        """The claims of a valid token of this issuer; raises TokenInvalid for anything else, whatever it is."""
        with refusing_all_else():
            encoded, payload, _ = split(token)
            key = self._key_of(read_header(encoded, MEMBERS))
            verify_signature(token, key.key, key.algorithm)
            return self._claims(strict_json(payload, MOST_BRACKETS), key.kid)

    def _key_of(self, header: Members) -> VerifyingKey:
        kind = header.get("typ")
        require(isinstance(kind, str) and kind.lower() in self._types, Reason.HEADER)
        key = self.keys.key(name(header, "kid"))
        if key is None:
            raise TokenInvalid(reason=Reason.KEY_UNKNOWN)
        require(header.get("alg") == key.algorithm, Reason.HEADER)
        return key

    def _claims(self, payload: Members, kid: str) -> Claims:
        trusted = self.trusted
        require(payload.get("iss") == trusted.issuer, Reason.ISSUER)
        require_audience(payload, (trusted.audience,))
        issued_at, expires_at = require_times(payload, self._clock(), trusted.max_seconds)
        require(all(payload.get(claim) == value for claim, value in trusted.claims.items()), Reason.CLAIMS)
        return Claims(
            name(payload, trusted.client_claim),
            self._scopes(payload),
            name(payload, "jti") if "jti" in payload else "",
            issued_at,
            expires_at,
            kid,
            issuer=trusted.issuer,
            thumbprint=thumbprint_of(payload),
        )

    def _scopes(self, payload: Members) -> frozenset[Scope]:
        trusted = self.trusted
        if trusted.scope_claim is None:
            return frozenset(Scope)
        stated = _at(payload, trusted.scope_claim)
        listed = stated.split(" ") if isinstance(stated, str) else stated
        if not isinstance(listed, list) or not all(isinstance(entry, str) for entry in listed):
            return frozenset()
        if trusted.scopes is None:
            return known_scopes(" ".join(listed))
        return frozenset(scope for entry in listed for scope in trusted.scopes.get(entry, ()))


class FederatedVerifier(Verifier):
    """Verifies our own tokens, and those of the issuers that are trusted beside us."""

    def __init__(
        self,
        keys: KeySource,
        trusted: Iterable[TrustedIssuer] = (),
        *,
        issuer: str,
        audience: str,
        max_seconds: int,
        clock: Clock = time.time,
    ) -> None:
        super().__init__(keys, issuer=issuer, audience=audience, max_seconds=max_seconds, clock=clock)
        self.foreign: Mapping[str, ForeignIssuer] = {
            one.issuer: ForeignIssuer(
                one, RemoteKeys(one.jwks_url, one.algorithms, keep_seconds=one.keep_seconds), clock
            )
            for one in trusted
        }

    def start(self) -> None:
        """Fetch the others' keys, and keep fetching them."""
        for foreign in self.foreign.values():
            foreign.keys.start()

    def close(self) -> None:
        for foreign in self.foreign.values():
            foreign.keys.close()

    def verify(self, token: str) -> Claims:
        """The claims of a valid token of anybody who is trusted; raises TokenInvalid."""
        foreign = self.foreign.get(_stated_issuer(token)) if self.foreign else None
        return super().verify(token) if foreign is None else foreign.verify(token)

    def current(self, claims: Claims) -> bool:
        """Whether claims verified earlier have not expired since, nor their issuer's key left its set."""
        if claims.issuer and not self.trusts(claims):
            return False
        # As our own verifier says; spelled out, since it is asked at every request.
        return claims.expires_at > self._clock() - EXPIRY_LEEWAY_SECONDS

    def trusts(self, claims: Claims) -> bool:
        """Whether the key that signed claims verified earlier has not been withdrawn since."""
        if not claims.issuer:
            return super().trusts(claims)
        return self.foreign[claims.issuer].keys.key(claims.key_id) is not None


def _stated_issuer(token: str) -> str:
    """Who a token says that it is from, to know whose keys to ask; nothing else is done on its word."""
    try:
        stated = strict_json(split(token)[1], MOST_BRACKETS).get("iss")
    except (TokenInvalid, ValueError, RecursionError):
        return ""
    return stated if isinstance(stated, str) else ""


def _at(payload: Members, path: str) -> object:
    """A claim by its name, which may have dots in it (an address), or by a path of names."""
    if path in payload:
        return payload[path]
    found: object = payload
    for part in path.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(part)
    return found
