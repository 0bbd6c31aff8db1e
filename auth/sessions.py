"""Sessions of people in browsers: opened at sign-in, found by a cookie's hash, ended by hand, by rest or by age.

A session gets access tokens with which its pages predict. They name it, and are refused once it is ended.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session

from auth import people, revocations
from auth.people_errors import SessionInvalid, SessionNotFound
from auth.people_tables import Person, PersonSession
from model_store.database import clock_ms

SECOND_MS = 1000
# Of what names a session in lists, and in its tokens.
PREFIX = "ses_"
# How far `seen_at` may lag: a row is not written at every click.
SEEN_SECONDS = 60
# How long a token lives that a session got: what rests or is over takes no other one with it.
TOKEN_SECONDS = 300
# The oldest end first, so that nobody fills the table by signing in.
MOST_OF_ONE_PERSON = 20


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long a session may rest, and how long it lasts at all; in seconds."""

    idle_seconds: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Found:
    """A session that is in force; the remaining time in milliseconds, whichever end comes first."""

    id: str
    person_id: str
    role: str
    has_second_factor: bool
    remaining_ms: int
    seen_late: bool = field(default=False)


def open_session_of(session: Session, person: Person, lifetimes: Lifetimes, *, address: str, program: str) -> str:
    """The value of the new session's cookie, 256 random bits that are known only here and now.

    Always a new one, never what a browser sent: nobody can prepare a session for somebody else (session fixation).
    """
    cookie = secrets.token_urlsafe(32)
    now = clock_ms(session)
    session.execute(delete(PersonSession).where(PersonSession.expires_at <= now))
    for row in _rows(session, person.id)[MOST_OF_ONE_PERSON - 1 :]:
        _end(session, PersonSession.id == row.id)
    session.add(
        PersonSession(
            cookie_hash=cookie_hash(cookie),
            id=f"{PREFIX}{secrets.token_urlsafe(12)}",
            person_id=person.id,
            address=address[:64],
            program=_shown(program),
            created_at=now,
            seen_at=now,
            expires_at=now + lifetimes.seconds * SECOND_MS,
        )
    )
    session.flush()
    return cookie


def find(session: Session, hashed: str, lifetimes: Lifetimes) -> Found | None:
    """The session of a cookie with this hash, where it is in force."""
    row = session.execute(
        select(PersonSession, Person)
        .join(Person, Person.id == PersonSession.person_id)
        .where(PersonSession.cookie_hash == hashed)
    ).one_or_none()
    if row is None:
        return None
    now, (found, person) = clock_ms(session), row
    remaining = min(found.expires_at, found.seen_at + lifetimes.idle_seconds * SECOND_MS) - now
    if remaining <= 0:
        return None
    late = now - found.seen_at >= SEEN_SECONDS * SECOND_MS
    return Found(found.id, person.id, person.role, person.second_factor is not None, remaining, late)


def touch(session: Session, hashed: str) -> None:
    """Notes that the session was used now."""
    session.execute(update(PersonSession).where(PersonSession.cookie_hash == hashed).values(seen_at=clock_ms(session)))


def of_person(session: Session, person_id: str, lifetimes: Lifetimes) -> Sequence[PersonSession]:
    """The person's sessions that are in force, the newest first."""
    now = clock_ms(session)
    return [
        row
        for row in _rows(session, person_id)
        if row.expires_at > now and row.seen_at + lifetimes.idle_seconds * SECOND_MS > now
    ]


def token_seconds(session: Session, hashed: str) -> int:
    """How long a token may live that the session of this cookie gets now; raises SessionInvalid where it is over."""
    expires_at = session.scalar(select(PersonSession.expires_at).where(PersonSession.cookie_hash == hashed)) or 0
    left = (expires_at - clock_ms(session)) // SECOND_MS
    if left <= 0:
        raise SessionInvalid
    return min(TOKEN_SECONDS, left)


def end(session: Session, person_id: str, session_id: str) -> None:
    """Ends one session of a person; every gateway refuses it within a second. Raises SessionNotFound."""
    if not _end(session, (PersonSession.id == session_id) & (PersonSession.person_id == person_id)):
        raise SessionNotFound("there is no such session")


def end_of_cookie(session: Session, cookie: str) -> None:
    """Ends the session of this cookie, if there is one: whoever has the cookie may."""
    _end(session, PersonSession.cookie_hash == cookie_hash(cookie))


def cookie_hash(cookie: str) -> str:
    """What is stored of a cookie. It has 256 random bits, so a fast hash is enough (ASVS 5.0, 6.5.2)."""
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()


def _end(session: Session, which: ColumnElement[bool]) -> bool:
    """Ends a session and the tokens that it got; False where there is none."""
    gone = delete(PersonSession).where(which).returning(PersonSession.id, PersonSession.person_id)
    ended = session.execute(gone.execution_options(synchronize_session="fetch")).one_or_none()
    if ended is None:
        return False
    until = clock_ms(session) // SECOND_MS + TOKEN_SECONDS + 1
    if not revocations.revoke(session, ended.id, ended.person_id, until):
        # A thousand in five minutes are more than all gateways shall remember: whoever does that signs in again.
        people.end_everything(session, people.get(session, ended.person_id))
    return True


def _rows(session: Session, person_id: str) -> Sequence[PersonSession]:
    newest_first = select(PersonSession).where(PersonSession.person_id == person_id)
    return session.scalars(newest_first.order_by(PersonSession.created_at.desc(), PersonSession.id)).all()


def _shown(program: str) -> str:
    # It is a stranger's text that administrators will read: nothing that could steer a terminal.
    return "".join(character if character.isprintable() else "?" for character in program)[:200]
