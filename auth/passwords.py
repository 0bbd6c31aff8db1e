"""People's passwords: hashed with argon2id, a few at a time."""

from __future__ import annotations

import contextlib
import secrets
import threading
import unicodedata
from collections.abc import Iterator
from functools import cached_property

import passlib
from passlib.hash import argon2

from auth.errors import PasswordInvalid, PasswordsBusy

FEWEST_CHARACTERS = 12
MOST_CHARACTERS = 256
MEMORY_KIB = 64 * 1024


class Passwords:
    """Hashes and verifies passwords, at most `parallel` at once: each takes 64 MiB and about 0.1 s of a processor.

    Further ones wait for `wait_seconds` and are then refused. The costs are the second set that RFC 9106, section 4,
    recommends.
    """

    def __init__(self, parallel: int = 2, wait_seconds: float = 2.0) -> None:
        if tuple(int(part) for part in passlib.__version__.split(".")[:2]) < (1, 9):
            # Both provide `import passlib`; the old one fails on first use with today's bcrypt and is not maintained.
            raise RuntimeError(f"passlib {passlib.__version__} is installed: uninstall it and install libpass[argon2]")
        self._argon2 = argon2.using(type="ID", rounds=3, memory_cost=MEMORY_KIB, parallelism=4)
        self._places = threading.BoundedSemaphore(parallel)
        self._wait_seconds = wait_seconds

    def hash(self, password: str) -> str:
        """The hash to store, in PHC format.

        Raises PasswordInvalid for less than 12 or more than 256 characters or control characters, PasswordsBusy.
        """
        if not FEWEST_CHARACTERS <= len(password) <= MOST_CHARACTERS or not _typeable(password):
            raise PasswordInvalid(
                f"a password has {FEWEST_CHARACTERS} to {MOST_CHARACTERS} characters, none of them a control character"
            )
        return self._hashed(password)

    def verify(self, password: str, stored: str | None) -> bool:
        """Whether the password belongs to the stored hash; raises PasswordsBusy.

        `None` stands for a person who does not exist: the answer is no, after as much work as for one who does.
        """
        decoy = self._decoy
        if len(password) > MOST_CHARACTERS or not _typeable(password):
            password, stored = "", None
        with self._place():
            matches = bool(self._argon2.verify(_normal(password), stored if stored is not None else decoy))
        return matches and stored is not None

    def needs_update(self, stored: str) -> bool:
        """Whether a stored hash was made with other costs than today's."""
        return bool(self._argon2.needs_update(stored))

    def upgraded(self, password: str, stored: str) -> str | None:
        """A new hash of the right password where the stored one was made with other costs; raises PasswordsBusy."""
        return self._hashed(password) if self.needs_update(stored) else None

    @cached_property
    def _decoy(self) -> str:
        return self._hashed(secrets.token_urlsafe(32))

    def _hashed(self, password: str) -> str:
        with self._place():
            return str(self._argon2.hash(_normal(password)))

    @contextlib.contextmanager
    def _place(self) -> Iterator[None]:
        # Waiting is bounded, or a burst of wrong passwords would hold every thread of the server.
        if not self._places.acquire(timeout=self._wait_seconds):
            raise PasswordsBusy("too many passwords are being checked; try again shortly", retry_after_seconds=2)
        try:
            yield
        finally:
            self._places.release()


def _typeable(password: str) -> bool:
    return not any(unicodedata.category(character) in {"Cc", "Cs"} for character in password)


def _normal(password: str) -> str:
    # Keyboards of different systems send one letter as one character or as two; RFC 8265 compares in form C.
    return unicodedata.normalize("NFC", password)
