"""People: who may sign in, in which role; the last administrator stays.

Whatever takes something from a person (a role, the password, being enabled) ends the sessions and revokes the tokens
made before, and counts up the generation: gateways learn of it within a second.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

from sqlalchemy import delete as delete_rows
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from auth import refresh_tokens
from auth.errors import PersonExists, PersonNotFound
from auth.people_errors import LastAdministrator
from auth.people_tables import OneTimeToken, Person, PersonSession, RecoveryCode
from auth.roles import Role
from model_store.database import clock_ms
from model_store.generation import bump_generation
from model_store.registry import NAME, check_name

ID = re.compile(r"usr_[A-Za-z0-9_-]{1,60}")
SECOND_MS = 1000
# What no password has as its hash: of somebody who has yet to choose one.
NO_PASSWORD = ""


def create(session: Session, name: str, password_hash: str = NO_PASSWORD, role: Role = Role.READER) -> Person:
    """A new person; raises NameInvalid, and PersonExists where the name is taken."""
    person = Person(
        id=f"usr_{secrets.token_urlsafe(18)}",
        name=check_name(name, "person"),
        role=role,
        password_hash=password_hash,
        disabled=False,
        tokens_not_before=0,
        last_step=0,
    )
    session.add(person)
    try:
        session.flush()
    except IntegrityError as error:
        raise PersonExists(f"there is somebody named {name} already") from error
    session.refresh(person)
    bump_generation(session)
    return person


def get(session: Session, person_id: str) -> Person:
    """The row, locked until the transaction ends. Raises PersonNotFound."""
    return _locked(session, Person.id == person_id if ID.fullmatch(person_id) else None)


def named(session: Session, name: str) -> Person:
    """The row, locked until the transaction ends. Raises PersonNotFound."""
    return _locked(session, Person.name == name if NAME.fullmatch(name) else None)


def page(session: Session, *, after: str = "", limit: int = 100) -> Sequence[Person]:
    """At most `limit` people in the order of their names, those after the name `after`."""
    return session.scalars(select(Person).where(Person.name > after).order_by(Person.name).limit(limit)).all()


def administrator_exists(session: Session) -> bool:
    """Whether anybody is an administrator, enabled or not."""
    return session.scalar(select(Person.id).where(Person.role == Role.ADMIN).limit(1)) is not None


def set_password(session: Session, person: Person, password_hash: str) -> None:
    """The old password, sessions, tokens and tokens for choosing a password stop working."""
    person.password_hash = password_hash
    session.execute(delete_rows(OneTimeToken).where(OneTimeToken.person_id == person.id))
    end_everything(session, person)


def set_role(session: Session, person: Person, role: Role) -> None:
    """Raises LastAdministrator."""
    if person.role != role:
        if role != Role.ADMIN:
            _require_another_administrator(session, person)
        person.role = role
        end_everything(session, person)


def set_disabled(session: Session, person: Person, disabled: bool) -> None:
    """Raises LastAdministrator."""
    if person.disabled != disabled:
        if disabled:
            _require_another_administrator(session, person)
        person.disabled = disabled
        end_everything(session, person)


def remove_second_factor(session: Session, person: Person) -> None:
    """For somebody who lost it; sessions and tokens end, since nobody knows who has it now."""
    person.second_factor = person.second_factor_offered = None
    session.execute(delete_rows(RecoveryCode).where(RecoveryCode.person_id == person.id))
    end_everything(session, person)


def delete(session: Session, person: Person) -> None:
    """Raises LastAdministrator."""
    _require_another_administrator(session, person)
    refresh_tokens.revoke_all(session, person.id)
    session.delete(person)
    session.flush()
    bump_generation(session)


def end_everything(session: Session, person: Person) -> None:
    """Ends the person's sessions, and revokes the tokens issued so far."""
    session.execute(delete_rows(PersonSession).where(PersonSession.person_id == person.id))
    refresh_tokens.revoke_all(session, person.id)
    # As for clients: tokens say whole seconds, and of two revocations within one, the later must still revoke.
    beyond_previous = -(-person.tokens_not_before // SECOND_MS) * SECOND_MS
    person.tokens_not_before = max(clock_ms(session), beyond_previous) + 1
    session.flush()
    bump_generation(session)


def _locked(session: Session, condition: object) -> Person:
    # Anything else than our names and ids is not asked for: PostgreSQL refuses a NUL in a text.
    if condition is None:
        raise PersonNotFound("there is no such person")
    wanted = select(Person).where(condition).with_for_update().execution_options(populate_existing=True)  # type: ignore[arg-type] # one of the two comparisons above
    person = session.scalars(wanted).one_or_none()
    if person is None:
        raise PersonNotFound("there is no such person")
    return person


def _require_another_administrator(session: Session, person: Person) -> None:
    # Locked in one order: of two administrators who disable each other, the second one waits and is refused.
    able = session.scalars(
        select(Person)
        .where(Person.role == Role.ADMIN, Person.disabled.is_(False), Person.password_hash != NO_PASSWORD)
        .order_by(Person.id)
        .with_for_update()
    ).all()
    if [found.id for found in able] == [person.id]:
        raise LastAdministrator
