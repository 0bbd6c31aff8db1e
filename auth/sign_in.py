"""Signing in: a name, a password and, where one is set up, a code of the second factor, checked as one.

One answer for whatever is wrong, after the same work: an unknown name costs the argon2, the code and the recovery codes
of a known one. The check comes in two steps, since the hashing must not hold a transaction: `SignIn.check` reads and
computes, `admit` uses up the code and says whether everything still is as it was read.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import select
from sqlalchemy.orm import Session

from auth import people
from auth.attempts import Attempt, Attempts
from auth.errors import PersonNotFound
from auth.passwords import Passwords
from auth.people_errors import SignInFailed
from auth.people_tables import Person, RecoveryCode
from auth.second_factor import Proof, SecondFactor, use_up
from model_store.database import Sessions, transaction
from model_store.registry import NAME


@dataclass(frozen=True, slots=True)
class Checked:
    """A person whose password and code were right when they were read; `upgraded` is a hash with today's costs."""

    person_id: str
    proof: Proof
    stored: str = field(repr=False)
    upgraded: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class _Known:
    """What is stored of a person; of nobody, nothing."""

    id: str = ""
    password_hash: str | None = None
    second_factor: bytes | None = None
    last_step: int = 0
    recovery: tuple[str, ...] = ()


class SignIn:
    """Checks what people sign in with. Takes about 0.1 s of a processor and 64 MiB; to be called in a thread."""

    def __init__(
        self, sessions: Sessions, passwords: Passwords, second_factor: SecondFactor, attempts: Attempts
    ) -> None:
        self._sessions = sessions
        self._passwords = passwords
        self._second_factor = second_factor
        self._attempts = attempts

    def check(self, attempt: Attempt, password: str, code: str | None) -> Checked:
        """Raises SignInFailed, FailuresTooMany, PasswordsBusy, DatabaseUnavailable."""
        self._attempts.require_patience(attempt)
        with transaction(self._sessions, write=False) as session:
            known = _known(session, attempt.name)
        matches = self._passwords.verify(password, known.password_hash)
        proof = self._second_factor.prove(known.id, known.second_factor, known.last_step, known.recovery, code)
        if known.password_hash is None or not matches or proof is None:
            self._attempts.failed(attempt)
            raise SignInFailed
        self._attempts.succeeded(attempt)
        return Checked(known.id, proof, known.password_hash, self._passwords.upgraded(password, known.password_hash))


def admit(session: Session, checked: Checked) -> Person:
    """The person, locked until the transaction ends; the code is used up, the hash upgraded. Raises SignInFailed."""
    try:
        person = people.get(session, checked.person_id)
    except PersonNotFound:
        raise SignInFailed from None
    if person.disabled or person.password_hash != checked.stored or not use_up(session, person, checked.proof):
        raise SignInFailed
    if (person.second_factor is None) != (checked.proof == Proof()):
        # Set up or removed in between.
        raise SignInFailed
    if checked.upgraded is not None:
        person.password_hash = checked.upgraded
    session.flush()
    return person


def _known(session: Session, name: str) -> _Known:
    # Anything else than a name is asked for as "": PostgreSQL refuses a NUL in a text with an error of its own.
    person = session.scalars(select(Person).where(Person.name == (name if NAME.fullmatch(name) else ""))).one_or_none()
    person_id = "" if person is None else person.id
    recovery = session.scalars(select(RecoveryCode.code_hash).where(RecoveryCode.person_id == person_id)).all()
    if person is None or person.disabled:
        return _Known()
    return _Known(person.id, person.password_hash or None, person.second_factor, person.last_step, tuple(recovery))
