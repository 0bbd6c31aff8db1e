"""HTTP Basic credentials (RFC 7617), read strictly."""

from __future__ import annotations

import base64
import binascii

BASIC = b"basic "
MOST_BYTES = 8192


class CredentialsMalformed(ValueError):
    """The header is not base64 of UTF-8 text with a colon in it."""


def is_basic(value: bytes) -> bool:
    """Whether the value of an Authorization header names the scheme Basic, in any case."""
    return value[: len(BASIC)].lower() == BASIC


def read_basic(value: bytes) -> tuple[str, str]:
    """Name and password of an Authorization header; raises CredentialsMalformed, which never quotes them."""
    if len(value) > MOST_BYTES:
        raise CredentialsMalformed("too long")
    try:
        text = base64.b64decode(value[len(BASIC) :], validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        raise CredentialsMalformed("not base64 of UTF-8 text") from None
    name, colon, password = text.partition(":")
    if not colon:
        raise CredentialsMalformed("no colon")
    return name, password
