"""Reading the small forms of OAuth: strictly, and bounded before they are parsed (RFC 6749, appendix B)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl

from fastapi import Request
from starlette.requests import ClientDisconnect

from auth.errors import RequestInvalid

FORM = "application/x-www-form-urlencoded"
MOST_BYTES = 16 * 1024
MOST_FIELDS = 32

Form: TypeAlias = Mapping[str, str]


async def read_form(request: Request) -> Form:
    """The parameters of the body that have a value; raises RequestInvalid."""
    if request.scope["query_string"]:
        # A secret in an address ends up in logs and histories (RFC 6749, section 2.3.1).
        raise RequestInvalid("parameters belong in the body, not in the query")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise RequestInvalid(f"the body must be {FORM}")
    return _form(await _body(request))


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


def _form(body: bytes) -> Form:
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
