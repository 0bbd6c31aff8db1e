"""Administration of clients: who may call, with which scopes, and which models they may use."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt
from sqlalchemy.orm import Session

from auth import clients, grants
from auth.grants import MOST_GRANTS
from auth.scopes import DEFAULT, Scope, known_scopes
from auth.tables import Client
from gateway.admission import Caller
from gateway.audit_trail import note
from gateway.dependencies import Require, TokenFirst, open_session, parts, read_session
from gateway.grant_bodies import NAME_PATTERN, GrantBody, Grants, Name, grants_shown

log = logging.getLogger(__name__)

NO_STORE = {"cache-control": "no-store"}
# A week, to replace a secret in many places one after the other.
MOST_GRACE_SECONDS = 7 * 86_400

router = APIRouter(prefix="/admin/clients", tags=["Clients"], route_class=TokenFirst)

Admin = Annotated[Caller, Depends(Require(Scope.CLIENTS_ADMIN))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
ClientId = Annotated[str, Path(description="The client's id: `cli_…`.", examples=["cli_4mZQhVYwW0qK7bN2sT9xLd3R"])]

NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "There is no such client."}}


class NewClient(BaseModel):
    """A client to create."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "name": "reading-room",
                    "scopes": ["predict", "jobs", "models:read"],
                    "grants": [{"model": "mnist", "actions": ["predict", "submit", "metadata"]}],
                }
            ]
        },
    )

    name: Name = Field(description="Unique; 1 to 128 letters, digits, `.`, `_` and `-`.")
    scopes: list[Scope] = Field(
        default_factory=lambda: [scope for scope in Scope if scope in DEFAULT], min_length=1, max_length=len(Scope)
    )
    grants: list[GrantBody] = Field(default_factory=list, max_length=MOST_GRANTS)


class ClientShown(BaseModel):
    """A client as administrators see it; its secret is not kept and cannot be shown again."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "cli_4mZQhVYwW0qK7bN2sT9xLd3R",
                    "name": "reading-room",
                    "scopes": ["predict", "jobs", "models:read"],
                    "disabled": False,
                    "created_at": "2026-11-22T13:10:00.123000Z",
                }
            ]
        }
    )

    id: str
    name: str
    scopes: list[Scope]
    disabled: bool
    created_at: datetime


class ClientWithSecret(ClientShown):
    """A client with its new secret, which is shown this once."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "cli_4mZQhVYwW0qK7bN2sT9xLd3R",
                    "name": "reading-room",
                    "scopes": ["predict", "jobs", "models:read"],
                    "disabled": False,
                    "created_at": "2026-11-22T13:10:00.123000Z",
                    "client_secret": "sls_…",
                }
            ]
        }
    )

    client_secret: str


class SecretRotation(BaseModel):
    """What happens to the old secret and to tokens when a client gets a new secret."""

    model_config = ConfigDict(extra="forbid")

    grace_seconds: StrictInt = Field(
        0, ge=0, le=MOST_GRACE_SECONDS, description="How long the old secret is good beside the new one."
    )
    keep_tokens: StrictBool = Field(False, description="Whether tokens issued so far stay good until they expire.")


class ClientsPage(BaseModel):
    """A page of the list; `next_page_token` is null on the last one."""

    clients: list[ClientShown]
    next_page_token: str | None


@router.post(
    "",
    status_code=201,
    summary="Create a client",
    description="Answers with the client's secret, this once. Scopes default to `predict jobs models:read`.",
    responses={409: {"description": "The name is taken."}},
)
def create_client(
    request: Request, response: Response, admin: Admin, session: Writing, body: NewClient
) -> ClientWithSecret:
    client, secret = clients.create(session, body.name, body.scopes, parts(request).settings.pepper)
    if body.grants:
        _grant(session, client.id, body.grants)
    note(request, client_id=client.id, client=client.name, scopes=client.scopes)
    if body.grants:
        note(request, grants=Grants(grants=body.grants).model_dump_json(exclude_none=True))
    log.info("client %s created by %s", client.id, admin.client_id)
    response.headers.update({**NO_STORE, "location": f"/admin/clients/{client.id}"})
    return _with_secret(client, secret)


@router.get("", summary="List clients", description="In the order of their names.")
def list_clients(
    admin: Admin,  # noqa: ARG001 - asking for it is the check
    session: Reading,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    page_token: Annotated[
        str | None, Query(pattern=NAME_PATTERN, description="`next_page_token` of the page before.")
    ] = None,
) -> ClientsPage:
    # One more than asked for tells whether there is a next page.
    found = clients.page(session, after=page_token or "", limit=limit + 1)
    shown = [_shown(client) for client in found[:limit]]
    return ClientsPage(clients=shown, next_page_token=shown[-1].name if len(found) > limit else None)


@router.get("/{client_id}", summary="Show a client", responses=NOT_FOUND)
def show_client(admin: Admin, session: Reading, client_id: ClientId) -> ClientShown:  # noqa: ARG001 - as above
    return _shown(clients.get(session, client_id))


@router.post(
    "/{client_id}/rotate",
    summary="Rotate a client's secret",
    description=(
        "The answer has the new secret. The old one and every token issued so far stop working at once, unless the "
        "body says otherwise."
    ),
    responses=NOT_FOUND,
)
def rotate_secret(
    request: Request,
    response: Response,
    admin: Admin,
    session: Writing,
    client_id: ClientId,
    body: SecretRotation | None = None,
) -> ClientWithSecret:
    asked = body or SecretRotation()
    secret = clients.rotate_secret(
        session,
        client_id,
        parts(request).settings.pepper,
        grace_seconds=asked.grace_seconds,
        keep_tokens=asked.keep_tokens,
    )
    log.info("secret of client %s rotated by %s", client_id, admin.client_id)
    response.headers.update(NO_STORE)
    return _with_secret(clients.get(session, client_id), secret)


@router.post(
    "/{client_id}/disable",
    summary="Disable a client",
    description="Every gateway refuses its tokens within a second; its waiting jobs are canceled when they come up.",
    responses=NOT_FOUND,
)
def disable_client(admin: Admin, session: Writing, client_id: ClientId) -> ClientShown:
    client = clients.set_disabled(session, client_id, True)
    log.info("client %s disabled by %s", client_id, admin.client_id)
    return _shown(client)


@router.post(
    "/{client_id}/enable",
    summary="Enable a client again",
    description="It gets new tokens with the secret that it has; those issued before it was disabled stay refused.",
    responses=NOT_FOUND,
)
def enable_client(admin: Admin, session: Writing, client_id: ClientId) -> ClientShown:
    client = clients.set_disabled(session, client_id, False)
    log.info("client %s enabled by %s", client_id, admin.client_id)
    return _shown(client)


@router.get("/{client_id}/grants", summary="Show a client's grants", responses=NOT_FOUND)
def show_grants(admin: Admin, session: Reading, client_id: ClientId) -> Grants:  # noqa: ARG001 - as above
    return _grants(session, client_id)


@router.put(
    "/{client_id}/grants",
    summary="Replace a client's grants",
    description=(
        "The list replaces all grants. A grant names a version, a label, or neither, for all versions of the model. "
        "`*` in a model's name stands for any letters. A model need not exist yet. A model without a grant does not"
        " exist for the client."
    ),
    responses=NOT_FOUND,
)
def replace_grants(request: Request, admin: Admin, session: Writing, client_id: ClientId, body: Grants) -> Grants:
    note(request, grants=body.model_dump_json(exclude_none=True))
    _grant(session, client_id, body.grants)
    log.info("grants of client %s replaced by %s", client_id, admin.client_id)
    return _grants(session, client_id)


@router.delete(
    "/{client_id}",
    status_code=204,
    summary="Delete a client",
    description="Forgets the client and its grants; its tokens are refused, its jobs canceled when they come up.",
    responses=NOT_FOUND,
)
def delete_client(admin: Admin, session: Writing, client_id: ClientId) -> None:
    clients.delete(session, client_id)
    log.info("client %s deleted by %s", client_id, admin.client_id)


def _shown(client: Client) -> ClientShown:
    return ClientShown(
        id=client.id,
        name=client.name,
        scopes=_scopes(client),
        disabled=client.disabled,
        created_at=datetime.fromtimestamp(client.created_at / 1000, UTC),
    )


def _with_secret(client: Client, secret: str) -> ClientWithSecret:
    return ClientWithSecret(**_shown(client).model_dump(), client_secret=secret)


def _scopes(client: Client) -> list[Scope]:
    has = known_scopes(client.scopes)
    return [scope for scope in Scope if scope in has]


def _grant(session: Session, client_id: str, wanted: list[GrantBody]) -> None:
    specs = [grant.spec() for grant in wanted]
    grants.require_lasting(session, client_id, specs)
    grants.set_grants(session, client_id, specs)


def _grants(session: Session, client_id: str) -> Grants:
    return grants_shown(grants.grants_of(session, client_id))
