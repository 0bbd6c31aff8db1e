"""Tokens after they were issued: taking them back (RFC 7009), and asking whether they are good (RFC 7662)."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth import clients, people, refresh_tokens, revocations, sessions
from auth.errors import PersonNotFound, TokenInvalid
from auth.roles import PERSON
from auth.scopes import Scope, format_scopes, known_scopes
from auth.tables import Client
from auth.tokens import CONSOLE, THUMBPRINT, Claims
from gateway.admission import Caller
from gateway.audit_trail import note_nothing_done
from gateway.client_credentials import ByAssertion, authenticated
from gateway.dependencies import open_session, parts
from gateway.forms import FORM
from gateway.parts import Parts
from gateway.routes.tokens import CLIENT_FIELDS, INTROSPECT_PATH, NO_STORE, REVOKE_PATH, note_owner
from gateway.token_requests import TokenQuestion, read_introspection, read_revocation
from model_store.database import transaction

INACTIVE: dict[str, Any] = {"active": False}
NOT_AUTHENTICATED: dict[int | str, dict[str, Any]] = {
    400: {"description": "`invalid_request`: `token` is missing, or the client authenticates in two ways."},
    401: {"description": "`invalid_client`: unknown, disabled, or the secret or assertion is wrong."},
    429: {"description": "Too many failed attempts from this address for this client."},
}

router = APIRouter(tags=["Tokens"])


class TokenState(BaseModel):
    """RFC 7662, section 2.2. A token that is not good says no more than that."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"active": False}]})

    active: bool
    scope: str | None = Field(None, description="What the token may do now; separated by spaces.")
    client_id: str | None = None
    sub: str | None = None
    token_type: str | None = None
    exp: int | None = Field(None, description="Seconds since 1970.")
    iat: int | None = None
    iss: str | None = None
    aud: str | None = None
    jti: str | None = None


def form_of(token: str) -> dict[str, Any]:
    """The form of both requests, for the interface's description."""
    properties = {
        "token": {"type": "string", "description": token},
        "token_type_hint": {"type": "string", "description": "Not needed: tokens say what they are."},
        **CLIENT_FIELDS,
    }
    schema = {"type": "object", "required": ["token"], "properties": properties}
    return {"requestBody": {"required": True, "content": {FORM: {"schema": schema}}}}


@router.post(
    REVOKE_PATH,
    summary="Revoke a token",
    description=(
        "Every gateway refuses the token within a second. The client authenticates as for a token. A token that is "
        "unknown, not valid or somebody else's is answered in the same way, and nothing happens. With a refresh token, "
        "or an access token that came with one, the whole sign-in ends."
    ),
    responses=NOT_AUTHENTICATED | {200: {"description": "Whatever the token was, it is not good any more."}},
    openapi_extra=form_of("The token to revoke."),
    response_class=Response,
)
def revoke_token(
    request: Request,
    asked: Annotated[TokenQuestion, Depends(read_revocation)],
    session: Annotated[Session, Depends(open_session, scope="function")],
) -> Response:
    found = parts(request)
    client = None
    if asked.credentials is not None:
        client = authenticated(session, asked.credentials, request)
    try:
        claims = found.verifier.verify(asked.token)
        if client is None and not claims.issuer and claims.client_id.startswith(PERSON):
            note_owner(request, claims.client_id)
        _revoke(session, client, claims)
    except TokenInvalid:
        family = refresh_tokens.family_of(session, asked.token)
        if client is None and family is not None:
            note_owner(request, family.identity_id)
            refresh_tokens.revoke_family(session, family.id)
        elif client is None:
            note_nothing_done(request)
    return Response(headers=NO_STORE)


@router.post(
    INTROSPECT_PATH,
    summary="Ask whether a token is good",
    description=(
        "For the client whose token it is; for a client that has the scope `clients:admin`, or sends a bearer token "
        "with it, for any token. One that would be refused is answered `active: false` and nothing else."
    ),
    responses=NOT_AUTHENTICATED | {403: {"description": "The bearer token does not have the scope: clients:admin."}},
    openapi_extra=form_of("The token in question."),
    response_model=TokenState,
)
def introspect_token(request: Request, asked: Annotated[TokenQuestion, Depends(read_introspection)]) -> JSONResponse:
    found = parts(request)
    with transaction(found.sessions, write=isinstance(asked.credentials, ByAssertion)) as session:
        owner = None
        if asked.credentials is not None:
            client = authenticated(session, asked.credentials, request)
            owner = None if Scope.CLIENTS_ADMIN in known_scopes(client.scopes) else client.id
        refreshing = refresh_tokens.standing(session, asked.token) if owner is None else None
    state = _state(found, asked.token, owner) if refreshing is None else _state_of_sign_in(found, refreshing)
    return JSONResponse(state, headers=NO_STORE)


def _revoke(session: Session, client: Client | None, claims: Claims) -> None:
    """Revokes what the client, or without one a person, may revoke; anything else is left alone."""
    # Another issuer's tokens are that issuer's to revoke.
    if claims.issuer:
        return
    if client is None:
        if claims.family is not None and not claims.family.startswith(sessions.PREFIX):
            refresh_tokens.revoke_family(session, claims.family)
        elif claims.client_id.startswith(PERSON) and not revocations.revoke(
            session, claims.token_id, claims.client_id, claims.expires_at
        ):
            _end_everything(session, claims.client_id)
    elif claims.client_id == client.id and not revocations.revoke(
        session, claims.token_id, client.id, claims.expires_at
    ):
        clients.revoke_tokens(session, client.id)


def _end_everything(session: Session, person_id: str) -> None:
    """For a person with more revoked tokens than gateways remember: as a client loses all that it has."""
    # Who is deleted has none any more.
    with contextlib.suppress(PersonNotFound):
        people.end_everything(session, people.get(session, person_id))


def _state(found: Parts, token: str, owner: str | None) -> dict[str, Any]:
    try:
        claims, caller = found.admission.inspect(token)
    except TokenInvalid:
        return INACTIVE
    # Whether somebody else's token is good is none of the client's business (RFC 7662, section 4).
    return INACTIVE if owner not in (None, caller.client_id) else _described(found, claims, caller)


def _described(found: Parts, claims: Claims, caller: Caller) -> dict[str, Any]:
    settings = found.settings
    foreign = found.verifier.foreign.get(claims.issuer)
    described = {
        "active": True,
        "scope": format_scopes(caller.scopes),
        "client_id": CONSOLE if caller.client_id.startswith(PERSON) else caller.client_id,
        "sub": claims.client_id,
        "token_type": "Bearer",
        "exp": claims.expires_at,
        "iat": claims.issued_at,
        "iss": claims.issuer or settings.issuer,
        "aud": settings.audience if foreign is None else foreign.trusted.audience,
        "jti": claims.token_id,
    }
    return described if claims.thumbprint is None else {**described, "cnf": {THUMBPRINT: claims.thumbprint}}


def _state_of_sign_in(found: Parts, standing: refresh_tokens.Standing) -> dict[str, Any]:
    person = found.snapshot.rights.clients.get(standing.identity_id)
    if person is None or person.disabled:
        return INACTIVE
    return {
        "active": True,
        "scope": format_scopes(standing.scopes & person.scopes),
        "client_id": CONSOLE,
        "sub": standing.identity_id,
        "exp": standing.expires_at,
        "iss": found.settings.issuer,
    }
