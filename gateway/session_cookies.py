"""Cookies of people's sessions: how they are written, read, and told from requests that another site forged.

Prefix and attributes as RFC 6265bis recommends. Whether they are for https only follows from the configuration: a
request's own headers say what its sender likes.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from urllib.parse import urlsplit

from fastapi import Request, Response

from auth.devices import KEEP_SECONDS
from auth.people_errors import RequestForged, SessionInvalid
from auth.people_settings import CookieKind

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER = "x-csrf-token"
MOST_CHARACTERS = 256
SESSION = "sluice-session"
DEVICE = "sluice-device"
PREFIX = "__Host-"


class SessionCookies:
    """Writes and reads the two cookies: of the session, and of the browser in which somebody signed in before."""

    def __init__(self, *, secure: bool, origin: str | None) -> None:
        """`origin` is where pages of this gateway come from, if the configuration says so; else `Host` says it."""
        self.secure = secure
        self._origin = origin
        self._prefix = PREFIX if secure else ""

    @property
    def session_name(self) -> str:
        return self._prefix + SESSION

    def session(self, request: Request) -> str | None:
        """The value of the session's cookie, or None; raises SessionInvalid where there are two."""
        return self._value(request, self.session_name)

    def device(self, request: Request) -> str | None:
        """The mark of this browser, or None."""
        try:
            return self._value(request, self._prefix + DEVICE)
        except SessionInvalid:
            return None

    def write(self, response: Response, session: str, device: str | None = None) -> None:
        """The session ends with the browser at the latest; the mark of the browser stays for half a year."""
        self._write(response, SESSION, session, None)
        if device is not None:
            self._write(response, DEVICE, device, KEEP_SECONDS)

    def clear(self, response: Response) -> None:
        self._write(response, SESSION, "", 0)

    def require_own_page(self, request: Request) -> None:
        """Raises RequestForged for a changing request that a page of another site sent.

        Browsers say where a page came from, and pages cannot change it; programs say nothing.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        if site not in (None, "same-origin", "none"):
            raise RequestForged("a page of another site sent this request")
        if origin is None or (self._origin is not None and origin == self._origin):
            return
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or parts.netloc != request.headers.get("host"):
            raise RequestForged("a page of another site sent this request")

    def require_unforged(self, request: Request, session: str) -> None:
        """As `require_own_page`, and the header must hold the session's own token; nothing is asked of GET."""
        if request.method in SAFE_METHODS:
            return
        self.require_own_page(request)
        sent = request.headers.get(CSRF_HEADER, "").encode("latin-1")
        if not hmac.compare_digest(sent, csrf_token(session).encode()):
            raise RequestForged(f"the header {CSRF_HEADER} is missing or is not this session's")

    def _value(self, request: Request, name: str) -> str | None:
        values = [
            value.strip()
            for header in request.headers.getlist("cookie")
            for known, _, value in (pair.strip().partition("=") for pair in header.split(";"))
            if known == name
        ]
        # A cookie of a parent domain, or of another path, could stand before ours.
        if len(values) > 1:
            raise SessionInvalid
        return values[0][:MOST_CHARACTERS] if values and values[0] else None

    def _write(self, response: Response, name: str, value: str, seconds: int | None) -> None:
        response.set_cookie(
            self._prefix + name,
            value,
            max_age=seconds,
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="strict",
        )


def csrf_token(session: str) -> str:
    """What a page sends with changing requests: it follows from the cookie, which no script can read."""
    return hmac.new(session.encode("utf-8", "surrogatepass"), b"sluice csrf token", hashlib.sha256).hexdigest()


def session_cookies(kind: CookieKind, *, host: str, issuer: str, has_tls: bool) -> SessionCookies:
    """The cookies of a gateway with this configuration."""
    origin = _origin(issuer)
    is_https = has_tls or (origin is not None and origin.startswith("https://"))
    plain = kind is CookieKind.PLAIN or (kind is CookieKind.AUTO and _is_loopback(host) and not is_https)
    return SessionCookies(secure=not plain, origin=origin)


def _origin(issuer: str) -> str | None:
    parts = urlsplit(issuer)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("http", "https") and parts.netloc else None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
