"""Names and passwords by HTTP Basic, for pages that are closed to the public; remembered for a minute."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable

from sqlalchemy import select

from auth.attempts import Attempt, Attempts
from auth.errors import PersonAuthenticationFailed
from auth.passwords import Passwords
from auth.people_settings import SecondFactorDemand
from auth.people_tables import Person
from model_store.database import Sessions, transaction
from model_store.registry import NAME

KEEP_SECONDS = 60.0
CAPACITY = 1000


class PasswordCheck:
    """Says whether a name and a password belong together, without paying for argon2 at every scrape of `/metrics`.

    A success is remembered for a minute, under a keyed hash of name, password and stored hash. The row is still read
    each time, so that a new password or a disabled person counts at once. Whoever has a second factor, or must have
    one, is refused: it would not be one if the password alone opened something.
    """

    def __init__(
        self,
        sessions: Sessions,
        passwords: Passwords,
        attempts: Attempts,
        demand: SecondFactorDemand = SecondFactorDemand.OPTIONAL,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._passwords = passwords
        self._attempts = attempts
        self._demand = demand
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._remembered: dict[bytes, float] = {}

    def check(self, name: str, password: str, address: str) -> str:
        """The person's name; raises PersonAuthenticationFailed, FailuresTooMany, PasswordsBusy, DatabaseUnavailable.

        Takes about 0.1 s where nothing is remembered; to be called in a thread.
        """
        stored = self._stored_hash(name)
        remembered = self._keyed(name, password, stored or "")
        if stored is not None and self._is_remembered(remembered):
            return name
        attempt = Attempt(name, address)
        self._attempts.require_patience(attempt)
        if not self._passwords.verify(password, stored):
            self._attempts.failed(attempt)
            raise PersonAuthenticationFailed
        self._attempts.succeeded(attempt)
        self._remember(remembered)
        return name

    def remembers(self, name: str, password: str) -> bool:
        """Whether they were right a moment ago, and nothing has changed since; costs one question to SQL."""
        stored = self._stored_hash(name)
        return stored is not None and self._is_remembered(self._keyed(name, password, stored))

    def _is_remembered(self, keyed: bytes) -> bool:
        return self._remembered.get(keyed, 0.0) > self._clock()

    def _stored_hash(self, name: str) -> str | None:
        # Anything else than a name is asked for as "": PostgreSQL refuses a NUL in a text with an error of its own.
        wanted = name if NAME.fullmatch(name) else ""
        # The transaction ends before argon2 begins: it must not hold a connection for so long.
        with transaction(self._sessions, write=False) as session:
            person = session.scalars(select(Person).where(Person.name == wanted)).one_or_none()
        if person is None or person.disabled or person.second_factor is not None or self._demand.of(person.role):
            return None
        return person.password_hash or None

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
