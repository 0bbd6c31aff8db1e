"""What routes ask FastAPI for: the caller with the scope they need, a session, the gateway's parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, cast

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from sqlalchemy.orm import Session

from auth.errors import PersonAuthenticationFailed, TokenMissing
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.basic_credentials import CredentialsMalformed, is_basic, read_basic
from gateway.parts import Parts
from gateway.settings import GatewaySettings
from model_store.database import transaction
from model_store.errors import DatabaseUnavailable

# Routes that answer without a token by design. Whatever is not here must ask for a scope, or a test fails.
PUBLIC = frozenset(
    {
        "/",
        "/health/live",
        "/health/ready",
        "/v2/health/live",
        "/v2/health/ready",
        "/oauth/token",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
    }
)

TOKEN_PATH = "/oauth/token"  # noqa: S105 - an address, not a password


def parts(request: Request) -> Parts:
    """The collaborators that `create_app` made."""
    return cast(Parts, request.app.state.parts)


def open_session(request: Request) -> Iterator[Session]:
    """One transaction for the request, committed before the answer is sent.

    To be used as `Depends(open_session, scope="function")`: otherwise FastAPI commits after the answer, and a request
    whose commit fails has already said 200. Whoever changed something finds it in force here with the next request.
    """
    found = parts(request)
    with transaction(found.sessions) as session:
        yield session
    # The change is committed: that the database is away now must not make a failure of it.
    with contextlib.suppress(DatabaseUnavailable):
        found.snapshot.refresh()


def read_session(request: Request) -> Iterator[Session]:
    """One transaction that only reads: on SQLite it waits for no writer."""
    with transaction(parts(request).sessions, write=False) as session:
        yield session


def address_of(request: Request) -> str:
    """The caller's address, by which failed attempts are counted."""
    return request.client.host if request.client is not None else ""


class Require:
    """Lets a request in whose bearer token has the scope: `caller: Annotated[Caller, Depends(Require(Scope.X))]`.

    Any of `others` opens the door as well. Raises TokenMissing, TokenInvalid (401), RequestInvalid (400), ScopeMissing
    (403), RightsUnavailable (503).
    """

    def __init__(self, scope: Scope, *others: Scope) -> None:
        self.scope = scope
        self.others = frozenset(others)

    async def __call__(self, request: Request) -> Caller:
        admission = parts(request).admission
        caller = admission.caller(request.scope["headers"], request.scope["query_string"])
        if not self.others & caller.scopes:
            admission.require(caller, self.scope)
        return caller


class TokenFirst(APIRoute):
    """A route that looks at the token before the body: FastAPI reads and parses a body before it asks for anything."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def admit(request: Request) -> Response:
            parts(request).admission.caller(request.scope["headers"], request.scope["query_string"])
            return await handle(request)

        return admit


class Reader:
    """Lets people and programs look at a page: everybody where a setting makes it public, else by token or password.

    Raises PersonAuthenticationFailed (401, so that a browser asks), FailuresTooMany (429), and what `Require` does.
    """

    def __init__(self, public: Callable[[GatewaySettings], bool], scope: Scope) -> None:
        self.public = public
        self.scope = scope

    async def __call__(self, request: Request) -> None:
        found = parts(request)
        if self.public(found.settings):
            return
        sent = [value for name, value in request.scope["headers"] if name == b"authorization"]
        if len(sent) == 1 and is_basic(sent[0]):
            await _admit_person(request, sent[0])
            return
        try:
            caller = found.admission.caller(request.scope["headers"], request.scope["query_string"])
        except TokenMissing:
            raise PersonAuthenticationFailed from None
        found.admission.require(caller, self.scope)


async def _admit_person(request: Request, sent: bytes) -> None:
    try:
        name, password = read_basic(sent)
    except CredentialsMalformed:
        raise PersonAuthenticationFailed from None
    # It reads SQL and may compute argon2: not for the event loop.
    await run_in_threadpool(parts(request).password_check.check, name, password, address_of(request))
