"""People who may look at pages that are closed to the public, by name and password."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from auth.errors import PersonAuthenticationFailed, PersonExists, PersonNotFound
from auth.failures import Failures
from auth.passwords import Passwords
from auth.tables import Person
from model_store.database import Sessions, transaction
from model_store.registry import NAME, check_name

KEEP_SECONDS = 60.0
CAPACITY = 1000


def create(session: Session, passwords: Passwords, name: str, password: str) -> Person:
    """A new person; raises NameInvalid, PasswordInvalid, and PersonExists where the name is taken."""
    person = Person(name=check_name(name, "person"), password_hash=passwords.hash(password), disabled=False)
    session.add(person)
    try:
        session.flush()
    except IntegrityError as error:
        raise PersonExists(f"there is somebody named {name} already") from error
    return person


def set_password(session: Session, passwords: Passwords, name: str, password: str) -> None:
    """Raises PersonNotFound, PasswordInvalid."""
    _get(session, name).password_hash = passwords.hash(password)
    session.flush()


def set_disabled(session: Session, name: str, disabled: bool) -> None:
    """Raises PersonNotFound."""
    _get(session, name).disabled = disabled
    session.flush()


class PasswordCheck:
    """Says whether a name and a password belong together, without paying for argon2 at every scrape of `/metrics`.

    A success is remembered for a minute, under a keyed hash of name, password and stored hash. The row is still read
    each time, so that a new password or a disabled person counts at once.
    """

    def __init__(
        self,
        sessions: Sessions,
        passwords: Passwords,
        failures: Failures,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._passwords = passwords
        self._failures = failures
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._remembered: dict[bytes, float] = {}

    def check(self, name: str, password: str, address: str) -> str:
        """The person's name; raises PersonAuthenticationFailed, FailuresTooMany, PasswordsBusy, DatabaseUnavailable.

        Takes about 0.1 s where nothing is remembered; to be called in a thread.
        """
        # The transaction ends before argon2 begins: it must not hold a connection for so long.
        with transaction(self._sessions, write=False) as session:
            stored = _stored_hash(session, name)
        remembered = self._keyed(name, password, stored or "")
        if stored is not None and self._remembered.get(remembered, 0.0) > self._clock():
            return name
        self._failures.require_few(address, name)
        if not self._passwords.verify(password, stored):
            self._failures.count(address, name)
            raise PersonAuthenticationFailed
        self._failures.forget(address, name)
        self._remember(remembered)
        return name

    def _keyed(self, *parts: str) -> bytes:
        texts = [part.encode("utf-8", "surrogatepass") for part in parts]
        framed = b"".join(len(text).to_bytes(8, "big") + text for text in texts)
        return hmac.new(self._key, framed, hashlib.sha256).digest()

    def _remember(self, keyed: bytes) -> None:
        with self._lock:
            self._remembered.pop(keyed, None)
            while len(self._remembered) >= CAPACITY:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[keyed] = self._clock() + KEEP_SECONDS


def _stored_hash(session: Session, name: str) -> str | None:
    # Anything else than a name is asked for as "": PostgreSQL refuses a NUL in a text with an error of its own.
    wanted = name if NAME.fullmatch(name) else ""
    person = session.scalars(select(Person).where(Person.name == wanted)).one_or_none()
    return None if person is None or person.disabled else person.password_hash


def _get(session: Session, name: str) -> Person:
    person = session.get(Person, name) if NAME.fullmatch(name) else None
    if person is None:
        raise PersonNotFound("there is no such person")
    return person
