"""Reading requests to `/oauth/token` (RFC 6749), `/oauth/revoke` (RFC 7009) and `/oauth/introspect` (RFC 7662)."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import Request

from auth.errors import ClientAuthenticationFailed, ClientUnauthorized, GrantTypeUnsupported, RequestInvalid
from auth.scopes import Scope
from auth.tokens import CONSOLE
from gateway.admission import BEARER
from gateway.client_credentials import Credentials, read_credentials
from gateway.dependencies import caller_of, parts
from gateway.forms import Form, read_form

OF_CLIENTS = "client_credentials"
OF_PEOPLE = "refresh_token"


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """A client asks for a token; `scope` is None where none was asked for."""

    credentials: Credentials
    scope: str | None


@dataclass(frozen=True, slots=True)
class RefreshRequest:
    """A person who is signed in asks for the next tokens."""

    refresh_token: str = field(repr=False)
    scope: str | None


@dataclass(frozen=True, slots=True)
class TokenQuestion:
    """A token that is to be revoked or looked at.

    Without credentials: at revocation it comes from the console, a public client for which having the token is enough;
    at introspection from somebody whose bearer token has `clients:admin`.
    """

    credentials: Credentials | None
    token: str = field(repr=False)


async def read_token_request(request: Request) -> ClientRequest | RefreshRequest:
    """What is asked for, before anybody knows whether the secret is right.

    Raises RequestInvalid, GrantTypeUnsupported, ClientUnauthorized (400), ClientAuthenticationFailed (401) where there
    are no credentials.
    """
    form = await read_form(request)
    grant_type = form.get("grant_type")
    if grant_type is None:
        raise RequestInvalid("grant_type is missing")
    if grant_type not in (OF_CLIENTS, OF_PEOPLE):
        raise GrantTypeUnsupported(f"grant_type is one of: {OF_CLIENTS} {OF_PEOPLE}")
    credentials = read_credentials(request, form)
    if grant_type == OF_PEOPLE:
        if credentials is not None or form.get("client_id", CONSOLE) != CONSOLE:
            # A client gets a new token with what it authenticates by; refresh tokens belong to the console alone.
            raise ClientUnauthorized("refresh tokens are for people who are signed in")
        return RefreshRequest(_required(form, "refresh_token"), form.get("scope"))
    if credentials is None:
        raise ClientAuthenticationFailed
    return ClientRequest(credentials, form.get("scope"))


async def read_revocation(request: Request) -> TokenQuestion:
    """Raises RequestInvalid (400), ClientAuthenticationFailed (401) where there are no credentials."""
    form = await read_form(request)
    credentials = read_credentials(request, form)
    if credentials is None and form.get("client_id") != CONSOLE:
        raise ClientAuthenticationFailed
    return TokenQuestion(credentials, _required(form, "token"))


async def read_introspection(request: Request) -> TokenQuestion:
    """Raises as `read_revocation` does, and for a bearer token what `caller_of` does, and ScopeMissing (403)."""
    form = await read_form(request)
    sent = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if sent and sent[0][: len(BEARER)].lower() == BEARER:
        parts(request).admission.require(await caller_of(request), Scope.CLIENTS_ADMIN)
        return TokenQuestion(None, _required(form, "token"))
    credentials = read_credentials(request, form)
    if credentials is None:
        raise ClientAuthenticationFailed
    return TokenQuestion(credentials, _required(form, "token"))


def _required(form: Form, name: str) -> str:
    if name not in form:
        raise RequestInvalid(f"{name} is missing")
    return form[name]
