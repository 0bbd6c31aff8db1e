"""Sessions as people see them, and the opening of one: what several routes of signing in have in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from auth import sessions
from auth.attempts import Attempt
from auth.people_tables import Person, PersonSession
from auth.roles import Role, scopes_of
from auth.scopes import Scope
from auth.sign_in import Checked
from gateway.audit_trail import note
from gateway.dependencies import SignedInPerson, address_of, open_session, parts, read_session
from gateway.person_sessions import SignedIn
from gateway.session_cookies import csrf_token

NO_STORE = {"cache-control": "no-store"}
PASSWORD_CHARACTERS = 1024
FORBID = ConfigDict(extra="forbid")

Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
Password = Annotated[str, Field(max_length=PASSWORD_CHARACTERS, json_schema_extra={"format": "password"})]
Code = Annotated[
    str | None, Field(None, max_length=64, description="Of the second factor, or a recovery code; if one is set up.")
]
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: {"description": "The name, the password or the code is wrong, or the person is disabled; which, is not said."},
    403: {"description": "A page of another site sent the request, or the `X-CSRF-Token` is missing."},
    429: {"description": "Too many attempts; `Retry-After` says how long to wait."},
    503: {"description": "Too many passwords are being checked, or the database is away."},
}


Who = Annotated[SignedIn, Depends(SignedInPerson())]


class SessionShown(BaseModel):
    """Who is signed in. `csrf_token` goes into the header `X-CSRF-Token` of every changing request of this session."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "session_id": "ses_k1bJ2vYp8Qd7Zr3x",
                    "person_id": "usr_4mZQhVYwW0qK7bN2sT9xLd3R",
                    "name": "ada",
                    "role": "operator",
                    "scopes": ["models:read", "models:write", "metrics:read"],
                    "has_second_factor": True,
                    "second_factor_due": False,
                    "csrf_token": "6f1c…",
                    "expires_at": "2026-11-23T01:10:00Z",
                }
            ]
        }
    )

    session_id: str
    person_id: str
    name: str
    role: Role
    scopes: list[Scope]
    has_second_factor: bool
    second_factor_due: bool = Field(description="One is demanded: until it is set up, nothing else can be done.")
    csrf_token: str
    expires_at: datetime


class PasswordAgain(BaseModel):
    """The password once more, for what a session alone must not change, and a code where a second factor is set up."""

    model_config = FORBID

    password: Password
    code: Code


async def check(request: Request, name: str, password: str, code: str | None) -> Checked:
    """Checks what somebody signs in with, from this address and browser; raises what `SignIn.check` does."""
    people = parts(request).people
    if any(person.name == name for person in parts(request).snapshot.rights.clients.values()):
        # Of people there are only: somebody may have typed the password into the field of the name.
        note(request, attempted=name)
    attempt = Attempt(name, address_of(request), people.cookies.device(request))
    return await people.places.run(people.sign_in.check, attempt, password, code or None)


def begin(request: Request, response: Response, session: Session, person: Person) -> SessionShown:
    """Opens a session for somebody whose password and code were right, and writes its cookie."""
    people = parts(request).people
    note(request, identity=person.id, name=person.name)
    cookie = sessions.open_session_of(
        session,
        person,
        people.sessions.lifetimes,
        address=address_of(request),
        program=request.headers.get("user-agent", ""),
    )
    people.cookies.write(response, cookie, people.devices.mark(person.name))
    response.headers.update(NO_STORE)
    return shown(request, session, person, cookie)


def shown(request: Request, session: Session, person: Person, cookie: str) -> SessionShown:
    """The session of this cookie, which is in force."""
    row = session.get_one(PersonSession, sessions.cookie_hash(cookie))
    due = parts(request).settings.second_factor.of(person.role) and person.second_factor is None
    has = scopes_of(person.role)
    return SessionShown(
        session_id=row.id,
        person_id=person.id,
        name=person.name,
        role=Role(person.role),
        scopes=[] if due else [scope for scope in Scope if scope in has],
        has_second_factor=person.second_factor is not None,
        second_factor_due=due,
        csrf_token=csrf_token(cookie),
        expires_at=moment(row.expires_at),
    )


def moment(milliseconds: int) -> datetime:
    """A stored time as JSON shows it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
