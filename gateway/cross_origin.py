"""Pages of other origins: browsers let them call the interface where a setting names them (the Fetch standard's CORS).

Closed otherwise: without these headers a browser keeps every answer from the page that asked. Credentials that a
browser adds by itself are never allowed: a page sends its token, and the console's cookies are for the console alone.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.middleware import CLOSED_POLICY, NO_STORE, SECURITY_HEADERS

METHODS = b"GET, POST, PUT, PATCH, DELETE"
SENT = (
    b"authorization, content-type, idempotency-key, inference-header-content-length, last-event-id, prefer, "
    b"sluice-deadline, sluice-max-attempts, sluice-priority, sluice-webhook, x-request-id"
)
SHOWN = (
    b"idempotent-replayed, inference-header-content-length, location, preference-applied, ratelimit, "
    b"ratelimit-policy, retry-after, sluice-error-code, sluice-model-version, www-authenticate, "
    b"x-request-id"
)
REMEMBERED_SECONDS = b"600"
VARY = (b"vary", b"origin")


class CrossOrigin:
    """Tells browsers that pages of these origins may read the answers; everybody else is answered as before."""

    def __init__(self, app: ASGIApp, origins: frozenset[bytes]) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = {
            name: value for name, value in scope["headers"] if name in (b"origin", b"access-control-request-method")
        }
        origin = sent.get(b"origin")
        allowed = [(b"access-control-allow-origin", origin)] if origin in self._origins else []
        if allowed and scope["method"] == "OPTIONS" and b"access-control-request-method" in sent:
            await _permit(send, allowed)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exposed = [(b"access-control-expose-headers", SHOWN)] if allowed else []
                message = {**message, "headers": [*message.get("headers", []), *allowed, *exposed, VARY]}
            await send(message)

        await self._app(scope, receive, send_marked)


async def _permit(send: Send, allowed: list[tuple[bytes, bytes]]) -> None:
    """The answer to a browser that asks whether a page may ask."""
    headers = [
        *allowed,
        (b"access-control-allow-methods", METHODS),
        (b"access-control-allow-headers", SENT),
        (b"access-control-max-age", REMEMBERED_SECONDS),
        VARY,
        NO_STORE,
        CLOSED_POLICY,
        *SECURITY_HEADERS,
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
