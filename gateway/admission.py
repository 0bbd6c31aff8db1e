"""Admission: may this request enter, as whom, and which version does it mean; all from memory.

A token's signature costs about 70 µs to verify, so claims are remembered until they expire. What can change meanwhile
(the client, its scopes, its grants) is looked up for each request in the snapshot of rights; while that snapshot is the
same object as last time, so is the answer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

from auth.errors import Reason, RequestInvalid, ScopeMissing, TokenInvalid, TokenMissing
from auth.grants import ClientRights, Rights
from auth.scopes import Scope
from auth.tokens import MOST_CHARACTERS, Claims, Verifier
from model_store.catalog import Catalog, CatalogModel, CatalogVersion, label_not_found, not_found
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

    def require_fresh(self) -> None:
        """Raises a SluiceError of status 503 where the pictures are too old."""


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """The verified identity of a request; `scopes` are those of the token that the client still has."""

    client_id: str
    name: str
    scopes: frozenset[Scope]
    rights: ClientRights


class _Targets:
    """Resolved targets under one picture of rights and catalog; a new picture begins with none."""

    __slots__ = ("catalog", "found", "rights")

    def __init__(self, rights: Rights, catalog: Catalog) -> None:
        self.rights = rights
        self.catalog = catalog
        # Keyed by the client's rights as an object: a caller admitted under the previous picture is another key.
        self.found: dict[tuple[ClientRights, str, str, int | None, str | None], CatalogVersion] = {}


class Admission:
    """Decides who a request comes from and what it may use. Safe to use from several threads."""

    def __init__(self, verifier: Verifier, snapshot: Knowledge) -> None:
        self._verifier = verifier
        self._snapshot = snapshot
        # By the header's value as sent. Only verified tokens are in it, and revoking works on claims, not on spellings.
        self._remembered: dict[bytes, tuple[Claims, Rights, Caller]] = {}
        self._lock = threading.Lock()
        self._targets = _Targets(snapshot.rights, snapshot.catalog)

    def caller(self, headers: Headers, query: bytes) -> Caller:
        """Who the request comes from, by its raw ASGI headers and query string.

        Raises TokenMissing, TokenInvalid (401), RequestInvalid (400) for two ways of sending a token at once (RFC 6750,
        section 2), and what `require_fresh` raises (503). About 2 µs for a token seen before.
        """
        sent = _authorization(headers, query)
        self._snapshot.require_fresh()
        try:
            return self._admitted(sent)
        except TokenInvalid as refused:
            TOKENS_REFUSED.labels(refused.reason.value).inc()
            log.info("token refused: %s", refused.reason.value)
            raise

    def require(self, caller: Caller, scope: Scope) -> None:
        """Raises ScopeMissing."""
        if scope not in caller.scopes:
            raise ScopeMissing(scope)

    def target(
        self, caller: Caller, action: str, model: str, version: int | None = None, label: str | None = None
    ) -> CatalogVersion:
        """The AVAILABLE version that the caller means and may use.

        Permission comes before existence: what no grant covers is answered exactly as what does not exist, whatever its
        state (ModelNotFound; LabelNotFound for a label within a model that the caller may see). A bare name means the
        highest AVAILABLE version for everybody; a caller who may not use that one is told that the model is unknown,
        rather than silently given an older one. Raises VersionNotReady for a granted version in preparation.
        """
        rights, catalog = self._snapshot.rights, self._snapshot.catalog
        targets = self._targets
        if targets.rights is not rights or targets.catalog is not catalog:
            targets = self._targets = _Targets(rights, catalog)
        key = (caller.rights, action, model, version, label)
        found = targets.found.get(key)
        if found is None:
            found = _resolve(catalog, caller.rights, action, model, version, label)
            if len(targets.found) >= MOST_REMEMBERED:
                targets.found.clear()
            targets.found[key] = found
        return found

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
    client = rights.clients.get(claims.client_id)
    if client is None:
        raise TokenInvalid(reason=Reason.CLIENT_UNKNOWN)
    if client.disabled:
        raise TokenInvalid(reason=Reason.CLIENT_DISABLED)
    if claims.issued_at * 1000 < client.tokens_not_before:
        raise TokenInvalid(reason=Reason.REVOKED)
    return Caller(client.id, client.name, claims.scopes & client.scopes, client)


def _resolve(
    catalog: Catalog, rights: ClientRights, action: str, model: str, version: int | None, label: str | None
) -> CatalogVersion:
    known = catalog.models.get(model)
    if known is None or not rights.sees(model):
        raise not_found(model, version)
    number = _meant(known, version, label)
    if number is None:
        return _unresolved(catalog, known, rights, action, label)
    if not rights.allows(action, model, number, known.labels_of(number)):
        raise label_not_found(label) if label is not None else not_found(model, version)
    return catalog.resolve(model, version, label)


def _meant(known: CatalogModel, version: int | None, label: str | None) -> int | None:
    if label is not None:
        return known.labels.get(label)
    return known.latest if version is None else version


def _unresolved(
    catalog: Catalog, known: CatalogModel, rights: ClientRights, action: str, label: str | None
) -> CatalogVersion:
    # No such label; or a bare name before any version is AVAILABLE, which only who may use one of them may learn.
    if label is None and not any(rights.allows(action, known.name, n, known.labels_of(n)) for n in known.versions):
        raise not_found(known.name)
    return catalog.resolve(known.name, None, label)
