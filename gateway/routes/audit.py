"""The audit log, to read and to search."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from auth.audit_tables import AuditEntry
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Require, open_session
from gateway.moments import Moment
from model_store.registry import NAME

router = APIRouter(prefix="/admin/audit", tags=["Audit"])

Auditor = Annotated[Caller, Depends(Require(Scope.AUDIT_READ))]
# It writes one entry: that the log was read.
Writing = Annotated[Session, Depends(open_session, scope="function")]

PAGE_TOKEN = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})")
EXAMPLE: dict[str, Any] = {
    "number": 41,
    "at": "2026-11-22T13:10:00.123000Z",
    "identity": "cli_4mZQhVYwW0qK7bN2sT9xLd3R",
    "name": "root",
    "act": "put_label",
    "model": "mnist",
    "version": 2,
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "outcome": "done",
    "reason": None,
    "request_id": "6b1f9a53c0d24e11",
    "address": "10.0.0.7",
    "count": 1,
    "detail": {"route": "PUT /admin/models/{model}/labels/{label}", "label": "stable"},
    "hash": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
}


class EntryShown(BaseModel):
    """One entry: who did what to which, and how it ended."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    number: int | None = Field(description="Its place in the chain; null for about a second.")
    at: datetime
    identity: str = Field(
        description="`cli_…`, `usr_…`, `local` for the command line; empty where nobody proved to be."
    )
    name: str
    act: str
    model: str | None
    version: int | None
    digest: str | None = Field(description="SHA-256 of the version's artifact.")
    outcome: Literal["done", "refused"]
    reason: str | None = Field(description="The error's code.")
    request_id: str
    address: str
    count: int = Field(description="How many equal acts this entry stands for.")
    detail: dict[str, str]
    hash: str | None


class EntriesPage(BaseModel):
    """A page of entries, the newest first; `next_page_token` is null on the last one."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"entries": [EXAMPLE], "next_page_token": None}]})

    entries: list[EntryShown]
    next_page_token: str | None


class Asked(BaseModel):
    """What is looked for; what is left out may be anything."""

    model_config = ConfigDict(extra="forbid")

    identity: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$", description="`cli_…`, `usr_…` or `local`.")
    ] = None
    act: Annotated[str | None, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$", examples=["put_label"])] = None
    model: Annotated[str | None, Field(pattern=f"^{NAME.pattern}$")] = None
    outcome: Literal["done", "refused"] | None = None
    since: Annotated[Moment | None, Field(description="Not older than this moment (RFC 3339, with its zone).")] = None
    until: Annotated[Moment | None, Field(description="Not younger than this moment.")] = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    page_token: Annotated[
        str | None, Field(pattern=f"^{PAGE_TOKEN.pattern}$", description="`next_page_token` of the page before.")
    ] = None


@router.get(
    "",
    summary="Read the audit log",
    description="The newest entries first. That it was read is an entry of its own, once for each request.",
)
def read_audit(request: Request, auditor: Auditor, session: Writing, asked: Annotated[Asked, Query()]) -> EntriesPage:  # noqa: ARG001 - asking for it is the check
    note(request, query=request.scope["query_string"].decode("latin-1"))
    # One more than asked for tells whether there is a next page.
    rows = session.scalars(_wanted(asked).limit(asked.limit + 1)).all()
    shown = rows[: asked.limit]
    token = f"{shown[-1].at}.{shown[-1].id}" if len(rows) > asked.limit else None
    return EntriesPage(entries=[_shown(row) for row in shown], next_page_token=token)


def _wanted(asked: Asked) -> Select[AuditEntry]:
    wanted = select(AuditEntry).order_by(AuditEntry.at.desc(), AuditEntry.id.desc())
    for column, value in (
        (AuditEntry.identity, asked.identity),
        (AuditEntry.act, asked.act),
        (AuditEntry.model, asked.model),
        (AuditEntry.outcome, asked.outcome),
    ):
        if value is not None:
            wanted = wanted.where(column == value)
    if asked.since is not None:
        wanted = wanted.where(AuditEntry.at >= _milliseconds(asked.since))
    if asked.until is not None:
        wanted = wanted.where(AuditEntry.at <= _milliseconds(asked.until))
    if asked.page_token is not None and (found := PAGE_TOKEN.fullmatch(asked.page_token)):
        at, last = int(found[1]), int(found[2])
        # `at <=` besides, which an index can begin with.
        wanted = wanted.where(AuditEntry.at <= at, or_(AuditEntry.at < at, AuditEntry.id < last))
    return wanted


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _shown(row: AuditEntry) -> EntryShown:
    detail: dict[str, Any] = json.loads(row.detail)
    return EntryShown(
        number=row.number,
        at=datetime.fromtimestamp(row.at / 1000, UTC),
        identity=row.identity,
        name=row.name,
        act=row.act,
        model=row.model,
        version=row.version,
        digest=row.digest,
        outcome="refused" if row.outcome == "refused" else "done",
        reason=row.reason,
        request_id=row.request_id,
        address=row.address,
        count=row.count,
        detail=detail,
        hash=row.hash,
    )
