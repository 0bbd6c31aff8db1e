"""People's sessions in memory, so that a request with a cookie costs no SQL; bounded, and no older than rights are.

What is remembered counts for the picture of rights under which it was read. Ending a session changes the generation
and with it the picture, so that an ended session is refused within a second, like every withdrawn right.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from auth import sessions
from auth.people_errors import SessionInvalid
from auth.people_settings import PeopleSettings
from auth.rights import Rights
from auth.sessions import Found, Lifetimes
from gateway.admission import Caller, Knowledge
from model_store.database import Sessions, transaction

MOST_REMEMBERED = 10_000
# 256 bits in base64url; nothing else is worth a question to SQL.
COOKIE = re.compile(r"[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A person by a session; `second_factor_due` says that one is demanded and has yet to be set up."""

    session_id: str
    caller: Caller
    second_factor_due: bool


class PersonSessions:
    """Finds out whose session a cookie is. Safe to use from several threads."""

    def __init__(
        self,
        database: Sessions,
        snapshot: Knowledge,
        settings: PeopleSettings,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.lifetimes = Lifetimes(settings.session_idle_seconds, settings.session_seconds)
        self._database = database
        self._snapshot = snapshot
        self._demand = settings.second_factor
        self._clock = clock
        self._lock = threading.Lock()
        self._remembered: dict[str, tuple[float, Rights, SignedIn]] = {}

    async def find(self, cookie: str) -> SignedIn:
        """Raises SessionInvalid, RightsUnavailable where nobody can say, DatabaseUnavailable."""
        if not COOKIE.fullmatch(cookie):
            raise SessionInvalid
        self._snapshot.require_fresh()
        hashed = sessions.cookie_hash(cookie)
        until, rights, signed_in = self._remembered.get(hashed, (0.0, None, None))
        if signed_in is not None and rights is self._snapshot.rights and until > self._clock():
            return signed_in
        return await run_in_threadpool(self._read, hashed)

    def _read(self, hashed: str) -> SignedIn:
        # Taken before the row is read: what changes in between is read again.
        rights, now = self._snapshot.rights, self._clock()
        with transaction(self._database, write=False) as session:
            found = sessions.find(session, hashed, self.lifetimes)
        if found is None:
            with self._lock:
                self._remembered.pop(hashed, None)
            raise SessionInvalid
        if found.seen_late:
            with transaction(self._database) as session:
                sessions.touch(session, hashed)
        signed_in = self._signed_in(rights, found)
        self._remember(hashed, (now + min(sessions.SEEN_SECONDS, found.remaining_ms / 1000), rights, signed_in))
        return signed_in

    def _signed_in(self, rights: Rights, found: Found) -> SignedIn:
        person = rights.clients.get(found.person_id)
        if person is None or person.disabled:
            raise SessionInvalid
        due = self._demand.of(found.role) and not found.has_second_factor
        scopes = frozenset() if due else person.scopes
        return SignedIn(found.id, Caller(person.id, person.name, scopes, person.narrowed(scopes)), due)

    def _remember(self, hashed: str, entry: tuple[float, Rights, SignedIn]) -> None:
        with self._lock:
            while len(self._remembered) >= MOST_REMEMBERED and hashed not in self._remembered:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[hashed] = entry
