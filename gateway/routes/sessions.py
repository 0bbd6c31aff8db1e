"""Sessions of people: signing in and out, seeing and ending one's own, a new password, tokens for one's own tools."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from auth import clients, people, refresh_tokens, sessions
from auth.people_errors import SecondFactorDue, SessionInvalid
from auth.people_tables import Person, PersonSession
from auth.scopes import format_scopes
from auth.sign_in import Checked, admit
from gateway.dependencies import parts
from gateway.session_views import (
    FORBID,
    NO_STORE,
    REFUSALS,
    Code,
    Password,
    PasswordAgain,
    Reading,
    SessionShown,
    Who,
    Writing,
    begin,
    check,
    moment,
    shown,
)
from gateway.strict_bodies import StrictRoute
from monitoring.metrics import TOKENS_ISSUED

router = APIRouter(prefix="/admin", tags=["Sessions"], route_class=StrictRoute)


class SignInBody(BaseModel):
    """What a person signs in with."""

    model_config = FORBID

    name: str = Field(max_length=256, examples=["ada"])
    password: Password
    code: Code


class NewPassword(PasswordAgain):
    """The password so far, and the new one."""

    new_password: Password = Field(description="12 to 256 characters, none of them a control character.")


class OneSession(BaseModel):
    """A session as its owner and administrators see it."""

    session_id: str
    address: str
    program: str = Field(description="What the browser calls itself.")
    created_at: datetime
    seen_at: datetime = Field(description="A minute late at most.")
    expires_at: datetime


class SessionList(BaseModel):
    """Sessions that are in force, the newest first."""

    sessions: list[OneSession]


class PersonTokens(BaseModel):
    """Tokens for a person's own tools, in the words of RFC 6749."""

    access_token: str
    token_type: str
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str = Field(description="Good for one use at `/oauth/token`, which gives the next one.")
    scope: str


async def check_sign_in(request: Request, body: SignInBody) -> Checked:
    parts(request).people.cookies.require_own_page(request)
    return await check(request, body.name, body.password, body.code)


async def check_new_password(request: Request, who: Who, body: NewPassword) -> tuple[Checked, str]:
    checked = await check(request, who.caller.name, body.password, body.code)
    # Before the transaction: hashing takes a tenth of a second.
    found = parts(request).people
    return checked, await found.places.run(found.passwords.hash, body.new_password)


async def check_for_tokens(request: Request, who: Who, body: PasswordAgain) -> Checked:
    return await check(request, who.caller.name, body.password, body.code)


@router.post(
    "/session",
    status_code=201,
    summary="Sign in",
    description=(
        "Sets the session's cookie. Whoever has a second factor sends `code` at once: one answer covers name, password "
        "and code. An old session of this browser ends."
    ),
    responses=REFUSALS,
)
def sign_in(
    request: Request, response: Response, checked: Annotated[Checked, Depends(check_sign_in)], session: Writing
) -> SessionShown:
    person = admit(session, checked)
    before = parts(request).people.cookies.session(request)
    if before is not None:
        sessions.end_of_cookie(session, before)
    return begin(request, response, session, person)


@router.get("/session", summary="Who is signed in", responses={401: {"description": "Nobody is."}})
def show_session(request: Request, response: Response, who: Who, session: Reading) -> SessionShown:
    cookie, person = parts(request).people.cookies.session(request), session.get(Person, who.caller.client_id)
    if cookie is None or person is None or session.get(PersonSession, sessions.cookie_hash(cookie)) is None:
        # Ended since it was looked up.
        raise SessionInvalid
    response.headers.update(NO_STORE)
    return shown(request, session, person, cookie)


@router.delete(
    "/session", status_code=204, summary="Sign out", responses={401: {"description": "Nobody is signed in."}}
)
def sign_out(request: Request, response: Response, who: Who, session: Writing) -> None:
    sessions.end(session, who.caller.client_id, who.session_id)
    parts(request).people.cookies.clear(response)


@router.get("/sessions", summary="List one's own sessions")
def list_sessions(request: Request, who: Who, session: Reading) -> SessionList:
    return session_list(sessions.of_person(session, who.caller.client_id, parts(request).people.sessions.lifetimes))


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    summary="End one of one's own sessions",
    description="Every gateway refuses it within a second.",
    responses={404: {"description": "The person has no such session."}},
)
def end_session(who: Who, session: Writing, session_id: str) -> None:
    sessions.end(session, who.caller.client_id, session_id)


@router.put(
    "/session/password",
    summary="Choose a new password",
    description="All sessions and tokens of the person end; this browser gets a new session.",
    responses={**REFUSALS, 422: {"description": "The new password is too short or too long."}},
)
def change_password(
    request: Request,
    response: Response,
    checked: Annotated[tuple[Checked, str], Depends(check_new_password)],
    session: Writing,
) -> SessionShown:
    person = admit(session, checked[0])
    people.set_password(session, person, checked[1])
    return begin(request, response, session, person)


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
    person = admit(session, checked)
    scopes = who.caller.scopes
    refreshed = refresh_tokens.issue(session, person.id, scopes)
    token, seconds = parts(request).issuer.issue(
        person.id, scopes, issued_at=clients.issue_moment(session, person.tokens_not_before), family=refreshed.family
    )
    TOKENS_ISSUED.inc()
    response.headers.update(NO_STORE)
    return PersonTokens(
        access_token=token,
        token_type="Bearer",  # noqa: S106 - a kind
        expires_in=seconds,
        refresh_token=refreshed.text,
        scope=format_scopes(scopes),
    )


def session_list(rows: Sequence[PersonSession]) -> SessionList:
    """Stored sessions as they are shown."""
    return SessionList(
        sessions=[
            OneSession(
                session_id=row.id,
                address=row.address,
                program=row.program,
                created_at=moment(row.created_at),
                seen_at=moment(row.seen_at),
                expires_at=moment(row.expires_at),
            )
            for row in rows
        ]
    )
