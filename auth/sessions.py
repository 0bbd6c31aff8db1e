"""Sessions of people in browsers: opened at sign-in, found by a cookie's hash, ended by hand, by rest or by age."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from auth.people_errors import SessionNotFound
from auth.people_tables import Person, PersonSession
from model_store.database import clock_ms
from model_store.generation import bump_generation

SECOND_MS = 1000
# How far `seen_at` may lag: a row is not written at every click.
SEEN_SECONDS = 60
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
        session.delete(row)
        bump_generation(session)
    session.add(
        PersonSession(
            cookie_hash=cookie_hash(cookie),
            id=f"ses_{secrets.token_urlsafe(12)}",
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


def end(session: Session, person_id: str, session_id: str) -> None:
    """Ends one session of a person; every gateway refuses it within a second. Raises SessionNotFound."""
    wanted = delete(PersonSession).where(PersonSession.id == session_id, PersonSession.person_id == person_id)
    if session.execute(wanted).rowcount != 1:  # type: ignore[attr-defined] # of DELETE
        raise SessionNotFound("there is no such session")
    bump_generation(session)


def end_of_cookie(session: Session, cookie: str) -> None:
    """Ends the session of this cookie, if there is one: whoever has the cookie may."""
    if session.execute(delete(PersonSession).where(PersonSession.cookie_hash == cookie_hash(cookie))).rowcount:  # type: ignore[attr-defined] # as above
        bump_generation(session)


def cookie_hash(cookie: str) -> str:
    """What is stored of a cookie. It has 256 random bits, so a fast hash is enough (ASVS 5.0, 6.5.2)."""
    return hashlib.sha256(cookie.encode("utf-8", "surrogatepass")).hexdigest()


def _rows(session: Session, person_id: str) -> Sequence[PersonSession]:
    newest_first = select(PersonSession).where(PersonSession.person_id == person_id)
    return session.scalars(newest_first.order_by(PersonSession.created_at.desc(), PersonSession.id)).all()


def _shown(program: str) -> str:
    # It is a stranger's text that administrators will read: nothing that could steer a terminal.
    return "".join(character if character.isprintable() else "?" for character in program)[:200]
