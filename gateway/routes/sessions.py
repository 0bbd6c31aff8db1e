"""Sessions of people: signing in and out, seeing and ending one's own, a new password."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field

from auth import people, sessions
from auth.people_errors import SessionInvalid
from auth.people_tables import Person, PersonSession
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


async def check_sign_in(request: Request, body: SignInBody) -> Checked:
    parts(request).people.cookies.require_own_page(request)
    return await check(request, body.name, body.password, body.code)


async def check_new_password(request: Request, who: Who, body: NewPassword) -> tuple[Checked, str]:
    checked = await check(request, who.caller.name, body.password, body.code)
    # Before the transaction: hashing takes a tenth of a second.
    found = parts(request).people
    return checked, await found.places.run(found.passwords.hash, body.new_password)


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
