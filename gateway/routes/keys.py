"""Administration of signing keys: which there are, the next one, and the end of one."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StrictBool
from sqlalchemy.orm import Session

from auth import signing_keys
from auth.key_tables import StoredKey
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Require, TokenFirst, open_session, parts, read_session
from model_store.database import clock_ms

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/keys", tags=["Keys"], route_class=TokenFirst)

Admin = Annotated[Caller, Depends(Require(Scope.CLIENTS_ADMIN))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
Kid = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{43}$", description="The key's RFC 7638 thumbprint.")]

WRONG_MASTER: dict[int | str, dict[str, Any]] = {409: {"description": "Another master key made the keys so far."}}
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such key that verifies tokens."}}
NEEDED: dict[int | str, dict[str, Any]] = {409: {"description": "It is the only key that signs (`key_needed`)."}}


class Rotation(BaseModel):
    """How to rotate."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"compromised": False}]})

    compromised: StrictBool = Field(False, description="Refuse every token of the keys so far, at once.")


class Key(BaseModel):
    """A signing key; its private part is never shown."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kid": "rB2wLq0w9jYkY2cC1Yw9nB0d0zX8mE0l2Q3b4c5d6e7",
                    "state": "signing",
                    "created_at": "2026-11-22T13:10:00.123000Z",
                    "signs_from": "2026-11-22T13:20:00.123000Z",
                    "verifies_until": None,
                }
            ]
        }
    )

    kid: str
    state: Literal["published", "signing", "retiring", "ended"]
    created_at: datetime
    signs_from: datetime
    verifies_until: datetime | None


class Keys(BaseModel):
    """All signing keys, the newest first."""

    keys: list[Key]


@router.get("", summary="List signing keys")
def list_keys(admin: Admin, session: Reading) -> Keys:  # noqa: ARG001 - asking for it is the check
    """Those that ended stay in the list: what they signed may have to be verified later."""
    now = clock_ms(session)
    return Keys(keys=[_shown(row, now) for row in signing_keys.all_keys(session)])


@router.post("/rotate", status_code=201, summary="Add the next signing key", responses=WRONG_MASTER)
def rotate_key(request: Request, admin: Admin, session: Writing, body: Rotation | None = None) -> Key:
    """It is published at once and signs `SLUICE_KEY_PUBLISH_SECONDS` later; the ones before it verify until the last
    token that they signed is dead. Where they are `compromised`, their tokens are refused within a second.
    """
    found = parts(request)
    compromised = body is not None and body.compromised
    made = signing_keys.rotate(
        session,
        found.settings.master_keys,
        publish_seconds=found.settings.key_publish_seconds,
        compromised=compromised,
    )
    note(request, kid=made.kid, compromised=compromised)
    log.info("signing key %s added by %s%s", made.kid, admin.client_id, ", others compromised" if compromised else "")
    return _shown(made, clock_ms(session))


@router.delete("/{kid}", summary="End a signing key at once", responses=NOT_FOUND | NEEDED)
def withdraw_key(admin: Admin, session: Writing, kid: Kid) -> Key:
    """Every token that it signed is refused within a second. 409 for the only key that signs."""
    ended = signing_keys.withdraw(session, kid)
    log.info("signing key %s withdrawn by %s", kid, admin.client_id)
    return _shown(ended, clock_ms(session))


def _shown(row: StoredKey, now: int) -> Key:
    return Key(
        kid=row.kid,
        state=signing_keys.state_of(row, now).value,
        created_at=_time(row.created_at),
        signs_from=_time(row.signs_from),
        verifies_until=None if row.verifies_until is None else _time(row.verifies_until),
    )


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
