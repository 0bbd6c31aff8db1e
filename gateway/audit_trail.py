"""What requests leave in the audit log: every one that changes something, every refusal, and sampled predictions.

A route needs no call for it. `open_session` writes the entry of an act with the act; where a route did without, the
middleware sees it and makes the entry up from the answer. `note` adds what only the route knows.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlalchemy import select
from sqlalchemy.orm import Session

from auth.audit import ACT, Entry, Outcome, record
from gateway.audit_log import AuditLog
from model_store.errors import SluiceError
from model_store.tables import Version
from workers.protocols.body import Dialect

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.types import Scope

    from gateway.admission import Caller, Knowledge
    from gateway.prediction_addresses import Address
    from model_store.catalog import Catalog, CatalogVersion

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
# It is sent with POST so that the token does not stand in an address; it changes nothing, and comes with every request
# of whoever asks for each token.
ASKING = frozenset({"/oauth/introspect"})
REFUSED = frozenset({401, 403, 429})
# "Not there" and "not for you" are one answer; whoever reads the log wants to know of both.
HIDDEN = frozenset(
    {
        "model_not_found", "label_not_found", "job_not_found", "file_not_found", "batch_not_found",
        "webhook_not_found", "delivery_not_found", "upload_not_found",
    }
)  # fmt: skip
# Parts of addresses that let in whoever has them.
SECRET_PARTS = frozenset({"token"})
NOTHING: Mapping[str, object] = {}
OWN_FIELDS = ("identity", "name", "model", "version", "digest")


def note(request: HTTPConnection, **known: object) -> None:
    """Adds to the entry of this request: `identity`, `name`, `model`, `version`, `digest`, all else as its detail."""
    state = request.scope.setdefault("state", {})
    state["audit"] = {**state.get("audit", {}), **known}


def note_nothing_done(request: HTTPConnection) -> None:
    """Leaves this request without an entry: a stranger's, which changed nothing and could come any number of times."""
    request.scope.setdefault("state", {})["nothing_done"] = True


def record_act(session: Session, scope: Scope, catalog: Catalog) -> None:
    """Writes the entry of this request with its transaction; a version that a path names is given its digest."""
    if scope.get("state", {}).get("nothing_done"):
        return
    entry = _entry(scope, Outcome.DONE, None)
    if entry.model is not None and entry.version is not None and entry.digest is None:
        entry = replace(entry, digest=_digest(session, entry.model, entry.version, catalog))
    record(session, entry)


class AuditTrail:
    """Turns answers into entries. Safe to use from several threads."""

    def __init__(self, log: AuditLog, snapshot: Knowledge) -> None:
        self._log = log
        self._snapshot = snapshot
        self.share = log.predictions
        """The share of predictions that get an entry: where it is 0, asking for it is all that they cost."""

    def conclude(self, scope: Scope, status: int) -> None:
        """To be told of every answer but those to predictions: adds what was refused, and acts without an entry."""
        if "route" not in scope:
            return
        state = scope.get("state", {})
        changing = scope["method"] in CHANGING and scope["path"] not in ASKING
        if status < 400:
            if changing and not state.get("audited"):
                self._log.add(_entry(scope, Outcome.DONE, None))
            return
        code = state.get("refusal") or f"status_{status}"
        if status in REFUSED or code in HIDDEN or (changing and status < 500):
            self._log.add(self._without_made_up_models(_entry(scope, Outcome.REFUSED, code)))

    def refused_prediction(self, scope: Scope, address: Address, error: SluiceError, request_id: bytes) -> None:
        """A prediction that was not let in."""
        if error.status not in REFUSED and error.code not in HIDDEN:
            return
        self._log.add(
            self._without_made_up_models(
                _prediction(scope, address, address.version, None, Outcome.REFUSED, error.code, request_id)
            )
        )

    def predicted(self, scope: Scope, address: Address, target: CatalogVersion, status: int, request_id: bytes) -> None:
        """A prediction that was let in, sampled; whatever it was answered."""
        if status in REFUSED:
            # A refusal has an entry already, which is joined with its equals.
            return
        if self.share >= 1.0 or random.random() < self.share:  # noqa: S311 - a sample, not a secret
            outcome, reason = (Outcome.DONE, None) if status < 400 else (Outcome.REFUSED, f"status_{status}")
            self._log.add(_prediction(scope, address, target.number, target.digest, outcome, reason, request_id))

    def _without_made_up_models(self, entry: Entry) -> Entry:
        """Names of models are those that there are: a caller could make up any number of others."""
        if entry.model is None or entry.model in self._snapshot.catalog.models:
            return entry
        return replace(entry, model=None, detail={**entry.detail, "asked_for": entry.model})


def _digest(session: Session, model: str, version: int, catalog: Catalog) -> str | None:
    """The digest of a version, also of one that this transaction has just deleted: the picture in memory has it yet."""
    stored = session.scalar(select(Version.digest).where(Version.model == model, Version.number == version))
    if stored is None and model in catalog.models and version in catalog.models[model].versions:
        return catalog.models[model].versions[version].digest
    return stored


def _entry(scope: Scope, outcome: Outcome, reason: str | None) -> Entry:
    path = {name: part for name, part in scope.get("path_params", {}).items() if name not in SECRET_PARTS}
    known: dict[str, object] = {**path, **scope.get("state", {}).get("audit", {})}
    own = {name: known.pop(name, None) for name in OWN_FIELDS}
    caller: Caller | None = scope.get("caller")
    route = scope["route"]
    return Entry(
        act=_act(route.name),
        identity=_text(own["identity"]) or (caller.client_id if caller is not None else ""),
        name=_text(own["name"]) or (caller.name if caller is not None else ""),
        model=_text(own["model"]),
        version=_number(own["version"]),
        digest=_text(own["digest"]),
        outcome=outcome,
        reason=reason,
        request_id=scope.get("state", {}).get("request_id", ""),
        address=_address(scope),
        detail={"route": f"{scope['method']} {route.path}", **known},
    )


def _prediction(
    scope: Scope,
    address: Address,
    version: int | None,
    digest: str | None,
    outcome: Outcome,
    reason: str | None,
    request_id: bytes,
) -> Entry:
    caller: Caller | None = scope.get("caller")
    return Entry(
        act=_asked(address),
        identity=caller.client_id if caller is not None else "",
        name=caller.name if caller is not None else "",
        model=address.model,
        version=version,
        digest=digest,
        outcome=outcome,
        reason=reason,
        request_id=request_id.decode(),
        address=_address(scope),
        detail=NOTHING if address.label is None else {"label": address.label},
    )


def _asked(address: Address) -> str:
    if address.dialect is Dialect.EXPLAIN:
        return "explain"
    return "submit" if address.submits else "predict"


def _act(name: str) -> str:
    # The name of a route's function: a closed list, and nobody can forget to add to it.
    return name if ACT.fullmatch(name) else "request"


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _number(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None
