"""How a client proves at `/oauth/…` who it is: a secret by HTTP Basic or in the form, or a signed assertion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import unquote_plus

from fastapi import Request
from sqlalchemy.orm import Session

from auth import clients
from auth.assertions import TYPE, claimed_client
from auth.errors import ClientAuthenticationFailed, RequestInvalid
from auth.tables import Client
from gateway.audit_trail import note
from gateway.basic_credentials import CredentialsMalformed, is_basic, read_basic
from gateway.dependencies import address_of, parts
from gateway.forms import Form

ASSERTION_FIELDS = ("client_assertion", "client_assertion_type")


@dataclass(frozen=True, slots=True)
class BySecret:
    """An id and a secret, as they were sent."""

    client_id: str
    secret: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ByAssertion:
    """A signed assertion, as it was sent (RFC 7523, section 2.2)."""

    client_id: str
    text: str = field(repr=False)


Credentials: TypeAlias = BySecret | ByAssertion


def read_credentials(request: Request, form: Form) -> Credentials | None:
    """The one way in which the client authenticates; None where there is no trace of any.

    Raises RequestInvalid (400) for two ways at once, ClientAuthenticationFailed (401) for one that cannot be read.
    """
    headers = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if len(headers) > 1:
        raise RequestInvalid("there is more than one Authorization header")
    ways = [bool(headers), "client_secret" in form, any(name in form for name in ASSERTION_FIELDS)]
    if sum(ways) > 1:
        raise RequestInvalid("the client authenticates in two ways at once; use one")
    if headers:
        return _by_header(headers[0], form)
    if "client_secret" in form:
        if "client_id" not in form:
            raise ClientAuthenticationFailed
        return BySecret(form["client_id"], form["client_secret"])
    return _by_assertion(form) if any(ways) else None


def authenticated(session: Session, credentials: Credentials, request: Request) -> Client:
    """The client that it is; raises ClientAuthenticationFailed (401), FailuresTooMany (429).

    An assertion is written down as used: `session` must be one that writes. The audit log learns which client it is,
    and of a failure which one was tried, if there is such a client.
    """
    found, address = parts(request), address_of(request)
    try:
        if isinstance(credentials, ByAssertion):
            client = found.assertions.authenticate(session, credentials.text)
        else:
            client = clients.authenticate(session, credentials.client_id, credentials.secret, found.settings.pepper)
    except ClientAuthenticationFailed:
        if credentials.client_id in found.snapshot.rights.clients:
            note(request, attempted=credentials.client_id)
        # Asked only after the secret was wrong: who has the right one cannot be locked out, not even from the same
        # address, and nobody guesses 256 bits.
        found.failures.require_few(address, credentials.client_id)
        found.failures.count(address, credentials.client_id)
        raise
    note(request, identity=client.id, name=client.name)
    return client


def _by_header(value: bytes, form: Form) -> BySecret:
    if not is_basic(value):
        raise ClientAuthenticationFailed
    try:
        # Both are form-encoded before they are joined (RFC 6749, section 2.3.1); our ids and secrets look the same so.
        client_id, secret = (unquote_plus(part, errors="strict") for part in read_basic(value))
    except (CredentialsMalformed, UnicodeDecodeError):
        raise ClientAuthenticationFailed from None
    if form.get("client_id", client_id) != client_id:
        raise RequestInvalid("the client_id in the body is not that of the header")
    return BySecret(client_id, secret)


def _by_assertion(form: Form) -> ByAssertion:
    text = form.get("client_assertion", "")
    if form.get("client_assertion_type") != TYPE:
        raise RequestInvalid(f"client_assertion_type must be {TYPE}")
    client_id = claimed_client(text)
    if form.get("client_id", client_id) != client_id:
        raise ClientAuthenticationFailed
    return ByAssertion(client_id, text)
