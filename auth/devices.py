"""Marks of browsers in which somebody has signed in before, so that strangers' failures do not count against them.

The device cookies of OWASP ("Slow Down Online Guessing Attacks with Device Cookies"). A mark opens nothing: it has a
counter of failures of its own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable

KEEP_SECONDS = 180 * 86_400

_MARK = re.compile(r"([A-Za-z0-9_-]{16})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})")


class Devices:
    """Issues and recognises marks; every gateway with the same key recognises those of the others."""

    def __init__(self, pepper: bytes, *, clock: Callable[[], float] = time.time) -> None:
        self._key = hmac.new(pepper, b"device marks", hashlib.sha256).digest()
        self._clock = clock

    def mark(self, name: str) -> str:
        """A mark for the browser in which this person has just signed in."""
        number, until = secrets.token_urlsafe(12), str(int(self._clock()) + KEEP_SECONDS)
        return f"{number}.{until}.{self._signature(number, until, name)}"

    def known(self, mark: str | None, name: str) -> str | None:
        """The number of a mark that is ours, for this name and not too old; else None."""
        parts = _MARK.fullmatch(mark or "")
        if parts is None:
            return None
        number, until, signature = parts.groups()
        if not hmac.compare_digest(self._signature(number, until, name), signature) or int(until) <= self._clock():
            return None
        return number

    def _signature(self, number: str, until: str, name: str) -> str:
        signed = f"{number}|{until}|{name}".encode("utf-8", "surrogatepass")
        return base64.urlsafe_b64encode(hmac.new(self._key, signed, hashlib.sha256).digest()).rstrip(b"=").decode()
