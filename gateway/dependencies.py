"""What routes ask FastAPI for: the caller with the scope they need, a session, the gateway's parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Annotated, Any, cast

from fastapi import Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from sqlalchemy.orm import Session

from auth.errors import PersonAuthenticationFailed, TokenMissing
from auth.people_errors import SecondFactorDue, SessionInvalid
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.audit_trail import record_act
from gateway.basic_credentials import CredentialsMalformed, is_basic, read_basic
from gateway.page_tokens import PageTokens
from gateway.parts import Parts
from gateway.person_sessions import SignedIn
from gateway.settings import GatewaySettings
from gateway.strict_bodies import StrictRoute
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
        "/admin/password",
        "/admin/session",
        "/admin/setup",
        "/admin/tokens",
        "/oauth/introspect",
        "/oauth/revoke",
        "/oauth/token",
        "/.well-known/jwks.json",
        "/.well-known/oauth-authorization-server",
        "/.well-known/bundle-keys.json",
        "/.well-known/receipt-keys.json",
        "/v1/results/{token}",
    }
)

# Where a session counts: for programs, predictions among them, there are tokens.
PAGES = "/admin/"

TOKEN_PATH = "/oauth/token"  # noqa: S105 - an address, not a password


def parts(request: Request) -> Parts:
    """The collaborators that `create_app` made."""
    return cast(Parts, request.app.state.parts)


def page_tokens(request: Request) -> PageTokens:
    """What makes and reads the tokens of lists' pages."""
    return parts(request).pages


Pages = Annotated[PageTokens, Depends(page_tokens)]


def open_session(request: Request) -> Iterator[Session]:
    """One transaction for the request, committed before the answer is sent.

    To be used as `Depends(open_session, scope="function")`: otherwise FastAPI commits after the answer, and a request
    whose commit fails has already said 200. Whoever changed something finds it in force here with the next request,
    and the audit log has an entry of it.
    """
    found = parts(request)
    with transaction(found.sessions) as session:
        yield session
        record_act(session, request.scope, found.snapshot.catalog)
    request.scope["state"]["audited"] = True
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


async def caller_of(request: Request) -> Caller:
    """Who a request comes from: whose token it is or, on pages for people and without a token, whose session.

    Raises what `Admission.caller` and `signed_in` do, and SecondFactorDue.
    """
    found = parts(request)
    # A header was sent on purpose, a cookie comes by itself: it never adds to a token's rights, nor replaces a bad one.
    has_header = any(name == b"authorization" for name, _ in request.scope["headers"])
    if not has_header and request.scope["path"].startswith(PAGES) and found.people.cookies.session(request):
        return await person_of(request)
    scope = request.scope
    caller = found.admission.caller(scope["headers"], scope["query_string"], scope.get("extensions"))
    request.scope["caller"] = caller
    return caller


async def person_of(request: Request) -> Caller:
    """The person whose session's cookie a request has; raises SecondFactorDue (403) and what `signed_in` does."""
    person = await signed_in(request)
    if person.second_factor_due:
        raise SecondFactorDue
    return person.caller


async def signed_in(request: Request) -> SignedIn:
    """The person whose session's cookie a request has, also where a second factor has yet to be set up.

    Raises SessionInvalid (401), RequestForged (403), RightsUnavailable (503).
    """
    people = parts(request).people
    cookie = people.cookies.session(request)
    if cookie is None:
        raise SessionInvalid
    person = await people.sessions.find(cookie)
    request.scope["caller"] = person.caller
    people.cookies.require_unforged(request, cookie)
    return person


class Require:
    """Lets a request in whose token, or session, has the scope: `caller: Annotated[Caller, Depends(Require(Scope.X))]`.

    Any of `others` opens the door as well. Raises what `caller_of` does, and ScopeMissing (403).
    """

    def __init__(self, scope: Scope, *others: Scope) -> None:
        self.scope = scope
        self.others = frozenset(others)

    async def __call__(self, request: Request) -> Caller:
        caller = await caller_of(request)
        self.require(request, caller)
        return caller

    def require(self, request: Request, caller: Caller) -> None:
        """Raises ScopeMissing."""
        if not self.others & caller.scopes:
            parts(request).admission.require(caller, self.scope)


class SignedInPerson:
    """Lets a request in that has a session's cookie, also before a demanded second factor is set up.

    Raises what `signed_in` does.
    """

    async def __call__(self, request: Request) -> SignedIn:
        return await signed_in(request)


class TokenFirst(StrictRoute):
    """A route that looks at the token before the body: FastAPI reads and parses a body before it asks for anything."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def admit(request: Request) -> Response:
            await caller_of(request)
            return await handle(request)

        return admit


class Reader:
    """Lets people and programs look at a page: everybody where a setting makes it public, else by token or password.

    Gives the caller of a token, who may see less than everything; None for the others. Raises
    PersonAuthenticationFailed (401, so that a browser asks), FailuresTooMany (429), and what `Require` does.
    """

    def __init__(self, public: Callable[[GatewaySettings], bool], scope: Scope) -> None:
        self.public = public
        self.scope = scope

    async def __call__(self, request: Request) -> Caller | None:
        found = parts(request)
        if self.public(found.settings):
            return None
        sent = [value for name, value in request.scope["headers"] if name == b"authorization"]
        if len(sent) == 1 and is_basic(sent[0]):
            await _admit_person(request, sent[0])
            return None
        try:
            if not sent and found.people.cookies.session(request) is not None:
                # As with a password: these pages are for everybody who is known.
                await person_of(request)
                return None
            caller = await caller_of(request)
        except (TokenMissing, SessionInvalid):
            raise PersonAuthenticationFailed from None
        found.admission.require(caller, self.scope)
        return caller


async def _admit_person(request: Request, sent: bytes) -> None:
    try:
        name, password = read_basic(sent)
    except CredentialsMalformed:
        raise PersonAuthenticationFailed from None
    people = parts(request).people
    # Known ones do not wait behind a flood of sign-ins: Prometheus comes every few seconds.
    if not await run_in_threadpool(people.password_check.remembers, name, password):
        await people.places.run(people.password_check.check, name, password, address_of(request))
