"""Admission: may this request enter, as whom, and which version does it mean; all from memory.

A token's signature costs about 70 µs to verify, so claims are remembered until they expire. What can change meanwhile
(the client, its scopes, its grants) is looked up for each request in the snapshot of rights; while that snapshot is the
same object as last time, so is the answer.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

from auth.compact import MOST_CHARACTERS
from auth.errors import Reason, RequestInvalid, ScopeMissing, TokenInvalid, TokenMissing
from auth.rights import ClientRights, Rights
from auth.scopes import Scope
from auth.tokens import Claims, Verifier
from gateway.access import Asked, Found, permit, resolve
from gateway.client_certificates import Extensions, require_bound
from gateway.sight import Sight
from model_store.catalog import Catalog, CatalogVersion
from monitoring.metrics import TOKENS_REFUSED

log = logging.getLogger(__name__)

MOST_REMEMBERED = 10_000
MOST_QUERY_FIELDS = 1000
BEARER = b"bearer "

Headers = Sequence[tuple[bytes, bytes]]


class Knowledge(Protocol):
    """What admission asks: immutable pictures, replaced as wholes, and whether they are recent enough to decide by."""

    @property
    def rights(self) -> Rights: ...

    @property
    def catalog(self) -> Catalog: ...

    def now_ms(self) -> int:
        """The database's clock in milliseconds since 1970."""

    def require_fresh(self) -> None:
        """Raises a SluiceError of status 503 where the pictures are too old."""


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """The verified identity of a request; `scopes` are those of the token that the client still has.

    `thumbprint` is that of the certificate without which the token is not good, `revocable` what a revocation would
    name: the token, and the sign-in that it came of.
    """

    client_id: str
    name: str
    scopes: frozenset[Scope]
    rights: ClientRights
    thumbprint: str | None = None
    revocable: tuple[str, ...] = ()
    issued_at: int | None = None

    @property
    def token_id(self) -> str | None:
        """What revokes the token, if it is one of ours: its `jti`, or the sign-in or session of a person (`sid`)."""
        return self.revocable[-1] if self.revocable else None


class _Targets:
    """Resolved targets under one picture of rights and catalog; a new picture begins with none."""

    __slots__ = ("catalog", "found", "rights")

    def __init__(self, rights: Rights, catalog: Catalog) -> None:
        self.rights = rights
        self.catalog = catalog
        # Keyed by the client's rights as an object: a caller admitted under the previous picture is another key.
        # With each answer, the moment of the database's clock from which on it does not hold, if there is one.
        self.found: dict[tuple[ClientRights, str, str, int | None, str | None], Found] = {}


class Admission:
    """Decides who a request comes from and what it may use. Safe to use from several threads."""

    def __init__(self, verifier: Verifier, snapshot: Knowledge) -> None:
        self._verifier = verifier
        self._snapshot = snapshot
        # By the header's value as sent. Only verified tokens are in it, and revoking works on claims, not on spellings.
        self._remembered: dict[bytes, tuple[Claims, Rights, Caller]] = {}
        self._lock = threading.Lock()
        self._targets = _Targets(snapshot.rights, snapshot.catalog)

    def caller(self, headers: Headers, query: bytes, extensions: Extensions | None = None) -> Caller:
        """Who the request comes from, by its raw ASGI headers, query string and extensions.

        Raises TokenMissing, TokenInvalid (401), RequestInvalid (400) for two ways of sending a token at once (RFC 6750,
        section 2), and what `require_fresh` raises (503). About 2 µs for a token seen before.
        """
        sent = _authorization(headers, query)
        self._snapshot.require_fresh()
        try:
            caller = self._admitted(sent)
            if caller.thumbprint is not None:
                require_bound(caller.thumbprint, extensions)
            return caller
        except TokenInvalid as refused:
            TOKENS_REFUSED.labels(refused.reason.value).inc()
            log.info("token refused: %s", refused.reason.value)
            raise

    def inspect(self, token: str) -> tuple[Claims, Caller]:
        """What a token says, and whom it would let in at this moment; raises TokenInvalid, and 503 as above."""
        self._snapshot.require_fresh()
        claims = self._verifier.verify(token)
        return claims, _caller(claims, self._snapshot.rights)

    def renewed(self, caller: Caller) -> Caller:
        """A caller that was let in some time ago, with the rights that it has now.

        Raises TokenInvalid where it is gone or disabled since, or its token was revoked; that the token expired
        meanwhile is no reason.
        """
        picture = self._snapshot.rights
        rights = picture.clients.get(caller.client_id)
        if rights is None or rights.disabled:
            raise TokenInvalid(reason=Reason.CLIENT_UNKNOWN if rights is None else Reason.CLIENT_DISABLED)
        revoked = not picture.revoked.isdisjoint(caller.revocable)
        if revoked or rights.tokens_not_before != caller.rights.tokens_not_before:
            raise TokenInvalid(reason=Reason.REVOKED)
        return dataclasses.replace(caller, scopes=caller.scopes & rights.scopes, rights=rights.narrowed(caller.scopes))

    def require(self, caller: Caller, scope: Scope) -> None:
        """Raises ScopeMissing."""
        if scope not in caller.scopes:
            raise ScopeMissing(scope)

    def target(
        self, caller: Caller, action: str, model: str, version: int | None = None, label: str | None = None
    ) -> CatalogVersion:
        """The AVAILABLE version that the caller means and may use; raises as gateway/access.py's `resolve` does.

        Of several that calls of a bare name are split over, the one with the largest share.
        """
        return self.found(caller, action, model, version, label).version

    def found(
        self,
        caller: Caller,
        action: str,
        model: str,
        version: int | None = None,
        label: str | None = None,
        headers: Headers | None = None,
    ) -> Found:
        """As `target`, with the grant that allows it; the request's headers say which it gets of several."""
        rights, catalog = self._snapshot.rights, self._snapshot.catalog
        targets = self._targets
        if targets.rights is not rights or targets.catalog is not catalog:
            targets = self._targets = _Targets(rights, catalog)
        key = (caller.rights, action, model, version, label)
        known = targets.found.get(key)
        if known is not None and (known.until is None or self._snapshot.now_ms() < known.until):
            spread = known.spread
            return known if spread is None or headers is None else spread.choose(caller.client_id, headers)
        found = resolve(catalog, caller.rights, Asked(action, model, version, label), self._snapshot.now_ms())
        if len(targets.found) >= MOST_REMEMBERED:
            targets.found.clear()
        targets.found[key] = found
        spread = found.spread
        return found if spread is None or headers is None else spread.choose(caller.client_id, headers)

    def permit(self, caller: Caller, asked: Asked) -> None:
        """Raises ModelNotFound where no grant lets the caller administer this, whether or not it exists."""
        permit(self._snapshot.catalog, caller.rights, asked, self._snapshot.now_ms())

    def sight(self, caller: Caller) -> Sight:
        """What the caller may see of models at this moment."""
        return Sight(self._snapshot.catalog, caller.rights, self._snapshot.now_ms())

    def _admitted(self, sent: bytes) -> Caller:
        rights = self._snapshot.rights
        remembered = self._remembered.get(sent)
        if remembered is None:
            claims = self._verifier.verify(_token(sent))
        else:
            claims, known_rights, caller = remembered
            if not self._verifier.current(claims):
                with self._lock:
                    self._remembered.pop(sent, None)
                raise TokenInvalid(reason=Reason.EXPIRED)
            if known_rights is rights:
                return caller
            if not self._verifier.trusts(claims):
                raise TokenInvalid(reason=Reason.KEY_UNKNOWN)
        caller = _caller(claims, rights)
        self._remember(sent, (claims, rights, caller))
        return caller

    def _remember(self, sent: bytes, admitted: tuple[Claims, Rights, Caller]) -> None:
        with self._lock:
            while len(self._remembered) >= MOST_REMEMBERED and sent not in self._remembered:
                # The oldest first: dictionaries keep the order in which their keys came.
                del self._remembered[next(iter(self._remembered))]
            self._remembered[sent] = admitted


def _authorization(headers: Headers, query: bytes) -> bytes:
    sent: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if sent is not None:
                raise _two_ways("there is more than one Authorization header")
            sent = value
    if query and sent is not None and _names_a_token(query):
        raise _two_ways("the token is in the query as well; send it in the Authorization header only")
    if sent is None or sent[:7].lower() != BEARER:
        # A token in the query is not honoured: addresses end up in logs and histories (RFC 9700, section 4.3.2).
        raise TokenMissing("a bearer token is required; POST /oauth/token gives one")
    return sent


def _names_a_token(query: bytes) -> bool:
    if b"access_token" not in query and b"%" not in query:
        return False
    try:
        fields = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MOST_QUERY_FIELDS)
    except ValueError:
        raise RequestInvalid("the query has too many fields") from None
    return any(name == "access_token" for name, _ in fields)


def _two_ways(text: str) -> RequestInvalid:
    error = RequestInvalid(text)
    error.challenge = 'Bearer realm="sluice", error="invalid_request"'
    return error


def _token(sent: bytes) -> str:
    if len(sent) > len(BEARER) + MOST_CHARACTERS:
        raise TokenInvalid(reason=Reason.TOO_LONG)
    return sent[len(BEARER) :].decode("latin-1")


def _caller(claims: Claims, rights: Rights) -> Caller:
    # What another issuer calls a client is never one of our ids, whatever it looks like.
    own = not claims.issuer
    client_id = claims.client_id if own else rights.identities.get((claims.issuer, claims.client_id), "")
    client = rights.clients.get(client_id)
    if client is None:
        raise TokenInvalid(reason=Reason.CLIENT_UNKNOWN)
    if client.disabled:
        raise TokenInvalid(reason=Reason.CLIENT_DISABLED)
    if claims.issued_at * 1000 < client.tokens_not_before:
        raise TokenInvalid(reason=Reason.REVOKED)
    revocable = (claims.token_id, claims.family or claims.token_id) if own else ()
    if not rights.revoked.isdisjoint(revocable):
        raise TokenInvalid(reason=Reason.REVOKED)
    rights_of_token = client.narrowed(claims.scopes)
    scopes = claims.scopes & client.scopes
    return Caller(client.id, client.name, scopes, rights_of_token, claims.thumbprint, revocable, claims.issued_at)
