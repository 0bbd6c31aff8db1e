"""Reading a request to `/oauth/token`: a small form, and the client's id and secret in one of two places (RFC 6749)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Request
from starlette.requests import ClientDisconnect

from auth.errors import ClientAuthenticationFailed, GrantTypeUnsupported, RequestInvalid
from gateway.basic_credentials import CredentialsMalformed, is_basic, read_basic

FORM = "application/x-www-form-urlencoded"
MOST_BYTES = 16 * 1024
MOST_FIELDS = 32
GRANT_TYPE = "client_credentials"


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A well-formed request; `scope` is None where none was asked for."""

    client_id: str
    secret: str = field(repr=False)
    scope: str | None


async def read_token_request(request: Request) -> TokenRequest:
    """What is asked for, before anybody knows whether the secret is right.

    Raises RequestInvalid, GrantTypeUnsupported (400), ClientAuthenticationFailed (401) where there are no credentials.
    """
    if request.scope["query_string"]:
        # A secret in an address ends up in logs and histories (RFC 6749, section 2.3.1).
        raise RequestInvalid("parameters belong in the body, not in the query")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise RequestInvalid(f"the body must be {FORM}")
    form = _form(await _body(request))
    if "grant_type" not in form:
        raise RequestInvalid("grant_type is missing")
    if form["grant_type"] != GRANT_TYPE:
        raise GrantTypeUnsupported(f"the only grant_type here is {GRANT_TYPE}")
    client_id, secret = _credentials(request, form)
    return TokenRequest(client_id, secret, form.get("scope"))


async def _body(request: Request) -> bytes:
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > MOST_BYTES:
        raise _too_long()
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BYTES:
                raise _too_long()
    except ClientDisconnect:
        # Nobody reads this answer; but it is no fault of ours, and must not be logged as one.
        raise RequestInvalid("the body ended early") from None
    return bytes(body)


def _too_long() -> RequestInvalid:
    return RequestInvalid(f"the body may have at most {MOST_BYTES} bytes")


def _form(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=MOST_FIELDS
        )
    except ValueError:
        raise RequestInvalid(f"the body is not a form of at most {MOST_FIELDS} fields in UTF-8") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise RequestInvalid("a parameter is repeated")
    # RFC 6749, section 3.2: a parameter without a value counts as left out.
    return {name: value for name, value in form.items() if value}


def _credentials(request: Request, form: Mapping[str, str]) -> tuple[str, str]:
    headers = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if len(headers) > 1:
        raise RequestInvalid("there is more than one Authorization header")
    if not headers:
        if "client_id" not in form or "client_secret" not in form:
            raise ClientAuthenticationFailed
        return form["client_id"], form["client_secret"]
    if "client_secret" in form:
        raise RequestInvalid("the client's credentials are in the header and in the body; use one")
    client_id, secret = _from_header(headers[0])
    if form.get("client_id", client_id) != client_id:
        raise RequestInvalid("the client_id in the body is not that of the header")
    return client_id, secret


def _from_header(value: bytes) -> tuple[str, str]:
    if not is_basic(value):
        raise ClientAuthenticationFailed
    try:
        # Both are form-encoded before they are joined (RFC 6749, section 2.3.1); our ids and secrets look the same so.
        client_id, secret = (unquote_plus(part, errors="strict") for part in read_basic(value))
    except (CredentialsMalformed, UnicodeDecodeError):
        raise ClientAuthenticationFailed from None
    return client_id, secret
