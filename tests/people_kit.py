"""People for tests: added straight to SQL, signing in over real HTTP as a browser does."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from auth import people, sessions
from auth.passwords import Passwords
from auth.people_tables import Person
from auth.roles import Role
from model_store.database import transaction
from tests.plain_http import NO_TLS
from tests.quiet_gateway import QuietGateway

PASSWORD = "correct horse battery"


@functools.cache
def hashed() -> str:
    """The hash of the password of everybody here; argon2 is slow on purpose, so it is made once."""
    return Passwords().hash(PASSWORD)


def add_person(gateway: QuietGateway, name: str, role: Role = Role.ADMIN) -> Person:
    """A person with that password, known to the gateway at once."""
    with transaction(gateway.parts.sessions) as session:
        person = people.create(session, name, hashed(), role)
    gateway.parts.snapshot.refresh()
    return person


@dataclass
class Clock:
    """A clock that moves when it is told to; in seconds."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class CountingPasswords(Passwords):
    """Counts how often a password is really verified, for somebody or for nobody."""

    verified = 0

    def verify(self, password: str, stored: str | None) -> bool:
        self.verified += 1
        return super().verify(password, stored)


class Browser:
    """Keeps cookies and sends the session's token with every request, as a console does."""

    def __init__(self, gateway: QuietGateway) -> None:
        self._parts = gateway.parts
        self.http = httpx.Client(base_url=gateway.http.base_url, timeout=30, verify=NO_TLS)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()

    @property
    def cookie(self) -> str:
        return str(self.http.cookies["sluice-session"])

    def try_to_sign_in(self, name: str, password: str = PASSWORD, code: str | None = None) -> httpx.Response:
        answer = self.http.post("/admin/session", json={"name": name, "password": password, "code": code})
        if answer.status_code == 201:
            self.take_token(answer.json())
        return answer

    def enter(self, name: str) -> dict[str, Any]:
        """A session as signing in gives one, without the tenth of a second that a password takes."""
        with transaction(self._parts.sessions) as session:
            person = people.named(session, name)
            lifetimes = self._parts.people.sessions.lifetimes
            agent = self.http.headers.get("user-agent", "")
            cookie = sessions.open_session_of(session, person, lifetimes, address="127.0.0.1", program=agent)
        self.http.cookies.set("sluice-session", cookie, domain="127.0.0.1", path="/")
        shown = self.http.get("/admin/session")
        assert shown.status_code == 200, shown.text
        self.take_token(shown.json())
        return dict(shown.json())

    def sign_in(self, name: str, password: str = PASSWORD, code: str | None = None) -> dict[str, Any]:
        answer = self.try_to_sign_in(name, password, code)
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    def take_token(self, shown: dict[str, Any]) -> None:
        self.http.headers["x-csrf-token"] = shown["csrf_token"]
