"""Clients that prove who they are by a signature instead of a secret: `private_key_jwt` (RFC 7523, section 2.2).

What Sluice knows of such a client can be stolen without harm: it is public. An assertion is good once, for minutes.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection

from sqlalchemy import delete
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from auth.client_keys import find_key
from auth.clients import ID
from auth.compact import (
    EXPIRY_LEEWAY_SECONDS,
    ISSUED_LEEWAY_SECONDS,
    Members,
    name,
    read_header,
    refusing_all_else,
    require,
    require_audience,
    split,
    strict_json,
    verify_signature,
    whole,
)
from auth.errors import ClientAuthenticationFailed, Reason, TokenInvalid
from auth.tables import Client
from auth.token_tables import UsedAssertion
from model_store.database import clock_ms

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
MOST_SECONDS = 300
# `typ` may be missing: RFC 7523 wants none, and its successor the second of these.
TYPES = frozenset({"jwt", "client-authentication+jwt"})
KEEP_SECONDS = 120
SECOND_MS = 1000


class Assertions:
    """Checks assertions; `audiences` are those by which this server is meant: its issuer and its token endpoint."""

    def __init__(self, audiences: Collection[str], *, clock: Callable[[], float] = time.time) -> None:
        self._audiences = frozenset(audiences)
        self._clock = clock

    def authenticate(self, session: Session, assertion: str) -> Client:
        """The enabled client that signed this, for the first time that it is shown; raises ClientAuthenticationFailed.

        Writes it down, so that no gateway accepts it again once the transaction is committed.
        """
        try:
            with refusing_all_else():
                client_id, token_id, expires_at = self._signed(session, assertion)
        except TokenInvalid:
            raise ClientAuthenticationFailed from None
        client = session.get(Client, client_id)
        if client is None or client.disabled:
            raise ClientAuthenticationFailed
        _use_up(session, client.id, token_id, expires_at)
        return client

    def _signed(self, session: Session, assertion: str) -> tuple[str, str, int]:
        encoded, payload, _ = split(assertion)
        header, claims = read_header(encoded), strict_json(payload)
        client_id = name(claims, "sub")
        require(name(claims, "iss") == client_id and ID.fullmatch(client_id) is not None, Reason.CLAIMS)
        _require_kind(header)
        kid = name(header, "kid") if "kid" in header else None
        key = find_key(session, client_id, kid)
        if key is None:
            raise TokenInvalid(reason=Reason.KEY_UNKNOWN)
        # The algorithm is the key's, never the header's choice (RFC 8725, section 3.1).
        require(header.get("alg") == key.algorithm, Reason.HEADER)
        verify_signature(assertion, key.key, key.algorithm)
        require_audience(claims, self._audiences)
        return client_id, name(claims, "jti"), self._expiry(claims)

    def _expiry(self, claims: Members) -> int:
        now, expires_at = self._clock(), whole(claims, "exp")
        # Who says when it was made may be a little ahead of us; who does not is measured by our clock.
        made_at = whole(claims, "iat") if "iat" in claims else int(now)
        require(made_at <= now + ISSUED_LEEWAY_SECONDS, Reason.NOT_YET_VALID)
        require(expires_at > now - EXPIRY_LEEWAY_SECONDS, Reason.EXPIRED)
        require(0 < expires_at - made_at <= MOST_SECONDS, Reason.LIFETIME)
        if "nbf" in claims:
            require(whole(claims, "nbf") <= now + EXPIRY_LEEWAY_SECONDS, Reason.NOT_YET_VALID)
        return expires_at


def claimed_client(assertion: str) -> str:
    """Who an assertion claims to come from, not verified: to count failures by. Empty where it does not say."""
    try:
        return name(strict_json(split(assertion)[1]), "sub")
    except (TokenInvalid, ValueError, RecursionError):
        return ""


def _require_kind(header: Members) -> None:
    kind = header.get("typ", "jwt")
    require(isinstance(kind, str) and kind.lower() in TYPES, Reason.HEADER)


def _use_up(session: Session, client_id: str, token_id: str, expires_at: int) -> None:
    session.execute(delete(UsedAssertion).where(UsedAssertion.expires_at <= clock_ms(session)))
    used = hashlib.sha256(f"{client_id}\n{token_id}".encode()).hexdigest()
    try:
        with session.begin_nested():
            session.add(UsedAssertion(hash=used, expires_at=(expires_at + KEEP_SECONDS) * SECOND_MS))
    except IntegrityError:
        raise ClientAuthenticationFailed from None
