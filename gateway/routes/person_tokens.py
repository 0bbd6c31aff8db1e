"""Tokens of people: for a command line that signs in, for one's own tools, and for a page that predicts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth import clients, people, refresh_tokens, sessions
from auth.errors import PersonNotFound, ScopeMissing
from auth.people_errors import SecondFactorDue, SessionInvalid
from auth.people_tables import Person
from auth.roles import scopes_of
from auth.scopes import Scope, format_scopes
from auth.sign_in import Checked, admit
from gateway.audit_trail import note
from gateway.dependencies import parts
from gateway.routes.sessions import check_sign_in
from gateway.session_views import NO_STORE, REFUSALS, PasswordAgain, Who, Writing, check
from gateway.strict_bodies import StrictRoute
from monitoring.metrics import TOKENS_ISSUED

router = APIRouter(prefix="/admin", tags=["Sessions"], route_class=StrictRoute)

# What a page needs to show a model and to ask it; a token in a page's memory is for nothing else.
OF_PAGES = frozenset({Scope.PREDICT, Scope.EXPLAIN, Scope.MODELS_READ})


class PageToken(BaseModel):
    """A token for a page that predicts, in the words of RFC 6749."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "access_token": "eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9.….…",
                    "token_type": "Bearer",
                    "expires_in": 300,
                    "scope": "predict explain models:read",
                }
            ]
        }
    )

    access_token: str
    token_type: str
    expires_in: int = Field(description="Seconds until the access token expires.")
    scope: str


class PersonTokens(PageToken):
    """Tokens for a person's own tools, in the words of RFC 6749."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "access_token": "eyJhbGciOiJFUzI1NiIsImtpZCI6Ii4uLiIsInR5cCI6ImF0K2p3dCJ9.….…",
                    "token_type": "Bearer",
                    "expires_in": 900,
                    "scope": "predict explain jobs:admin models:read models:write metrics:read",
                    "refresh_token": "slr_…",
                }
            ]
        }
    )

    refresh_token: str = Field(description="Good for one use at `/oauth/token`, which gives the next one.")


async def check_for_tokens(request: Request, who: Who, body: PasswordAgain) -> Checked:
    return await check(request, who.caller.name, body.password, body.code)


@router.post(
    "/tokens",
    summary="Sign in from a command line",
    description=(
        "For programs that a person runs: name, password and, where a second factor is set up, a code give an access "
        "token with the scopes of the person's role, and a refresh token for the next ones. No session begins and no "
        "cookie is set. `/oauth/revoke` ends them, as does a new password."
    ),
    responses=REFUSALS,
)
def sign_in_for_tokens(
    request: Request, response: Response, checked: Annotated[Checked, Depends(check_sign_in)], session: Writing
) -> PersonTokens:
    person = admit(session, checked)
    if parts(request).settings.second_factor.of(person.role) and person.second_factor is None:
        raise SecondFactorDue
    note(request, identity=person.id, name=person.name)
    return _tokens(request, response, session, person)


@router.post(
    "/session/tokens",
    summary="Get tokens for one's own tools",
    description=(
        "An access token with the scopes of the person's role, and a refresh token for the next ones. They outlive the "
        "session; `/oauth/revoke` ends them, as does a new password."
    ),
    responses=REFUSALS,
)
def issue_tokens(
    request: Request,
    response: Response,
    who: Who,
    checked: Annotated[Checked, Depends(check_for_tokens)],
    session: Writing,
) -> PersonTokens:
    if who.second_factor_due:
        raise SecondFactorDue
    return _tokens(request, response, session, admit(session, checked))


@router.post(
    "/session/page-token",
    summary="Get a token with which a page predicts",
    description=(
        "A session is for `/admin/…`; predictions take tokens alone. This one predicts, explains and reads models, as "
        "far as the person's role does, lives for five minutes, and is refused within a second of the session's end."
    ),
    responses={
        401: {"description": "Nobody is signed in."},
        403: {
            "description": (
                "The role predicts nothing, a second factor is due, a page of another site sent the request, or the "
                "`X-CSRF-Token` is missing."
            )
        },
    },
)
def issue_page_token(request: Request, response: Response, who: Who, session: Writing) -> PageToken:
    if who.second_factor_due:
        raise SecondFactorDue
    cookie = parts(request).people.cookies.session(request)
    if cookie is None:
        raise SessionInvalid
    try:
        # Locked, and before the session is looked at: whoever ends everything of this person is waited for, or waits
        # and ends this token too. Otherwise it could be younger than their moment.
        person = people.get(session, who.caller.client_id)
    except PersonNotFound:
        raise SessionInvalid from None
    scopes = scopes_of(person.role) & OF_PAGES
    if Scope.PREDICT not in scopes:
        raise ScopeMissing(Scope.PREDICT)
    lasting = sessions.token_seconds(session, sessions.cookie_hash(cookie))
    text, seconds = _access(request, response, session, person, scopes, who.session_id, lasting)
    return PageToken(access_token=text, token_type="Bearer", expires_in=seconds, scope=format_scopes(scopes))  # noqa: S106 - a kind


def _tokens(request: Request, response: Response, session: Session, person: Person) -> PersonTokens:
    """The first tokens of a new sign-in."""
    scopes = scopes_of(person.role)
    refreshed = refresh_tokens.issue(session, person.id, scopes)
    text, seconds = _access(request, response, session, person, scopes, refreshed.family)
    return PersonTokens(
        access_token=text,
        token_type="Bearer",  # noqa: S106 - a kind
        expires_in=seconds,
        refresh_token=refreshed.text,
        scope=format_scopes(scopes),
    )


def _access(
    request: Request,
    response: Response,
    session: Session,
    person: Person,
    scopes: Collection[Scope],
    family: str,
    seconds: int | None = None,
) -> tuple[str, int]:
    issued_at = clients.issue_moment(session, person.tokens_not_before)
    TOKENS_ISSUED.inc()
    response.headers.update(NO_STORE)
    return parts(request).issuer.issue(person.id, scopes, issued_at=issued_at, family=family, seconds=seconds)
