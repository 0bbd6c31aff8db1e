"""What happens to every request once: its id, security headers, the body limit, counting and log context."""

from __future__ import annotations

import logging
import random
import re
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.errors import ContentEncoded, Rendered, RequestTooLarge, render, unforeseen
from gateway.prediction_bodies import is_longer
from model_store.errors import SluiceError
from monitoring import logs
from monitoring.metrics import request_metrics

log = logging.getLogger(__name__)

UPLOAD = re.compile(r"/admin/models/[^/]+/(versions|samples/[^/]+|uploads/[^/]+)|/v1/models/[^:]+:batch|/v1/files")
REQUEST_ID = re.compile(rb"^[A-Za-z0-9-]{8,64}$")
SECURITY_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")
NO_STORE = (b"cache-control", b"no-store")
CLOSED_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")


def request_id_of(headers: list[tuple[bytes, bytes]]) -> bytes:
    """The caller's X-Request-Id where it is a sane one, else one of our own."""
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.match(value):
            return value
    # Not from the system's source of randomness, a call of 2 to 3 µs: an id names a request and guards nothing.
    return b"%016x" % random.getrandbits(64)


class RequestContext:
    """Gives each request an id, security headers, a log context, and a place in the metrics and the audit log."""

    def __init__(self, app: ASGIApp, conclude: Callable[[Scope, int], None]) -> None:
        """`conclude` is told of every request with the status of its answer, for the audit log."""
        self._app = app
        self._conclude = conclude

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope["headers"])
        scope.setdefault("state", {})["request_id"] = request_id.decode()
        started, status, answered = time.perf_counter(), 500, False
        began_after: float | None = None

        async def send_marked(message: Message) -> None:
            nonlocal status, answered, began_after
            if message["type"] == "http.response.start":
                status, answered = message["status"], True
                headers = [pair for pair in message.get("headers", []) if pair[0] != b"x-request-id"]
                headers += [(b"x-request-id", request_id), *SECURITY_HEADERS]
                said = {name for name, _ in headers}
                if EVENT_STREAM in headers:
                    # How long it stays open is the reader's affair: what counts is how soon it began.
                    began_after = time.perf_counter() - started
                # What is about a caller's rights must not be found in a cache by somebody else.
                headers += [pair for pair in (CLOSED_POLICY, NO_STORE) if pair[0] not in said]
                message = {**message, "headers": headers}
            await send(message)

        try:
            with logs.bind(request_id=request_id.decode()):
                try:
                    await self._app(scope, receive, send_marked)
                except Exception:  # the process's edge: one request's unforeseen failure is its own
                    log.exception("a request failed unexpectedly")
                    # Half an answer cannot be taken back: the server cuts the connection.
                    if answered:
                        raise
                    await answer(send_marked, render(scope["path"], unforeseen()))
        finally:
            seconds = time.perf_counter() - started if began_after is None else began_after
            request_metrics(route_of(scope), "", "").observe(outcome_of(status), seconds)
            self._conclude(scope, status)


class BodyLimit:
    """Refuses a body that is packed, or over the limit, before it is read whole; uploads have a limit of their own."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        fault = self._fault_of_head(scope)
        if fault is not None:
            await self._refuse(scope, send, fault)
            return
        if is_upload(scope):
            await self._app(scope, receive, send)
            return
        received, answered = 0, False

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._limit_bytes:
                raise self._too_large()
            return message

        async def send_unless_refused(message: Message) -> None:
            nonlocal answered
            # FastAPI makes a 400 of whatever is raised while it reads a body.
            if answered or received <= self._limit_bytes:
                answered = True
                await send(message)

        await self._app(scope, receive_counted, send_unless_refused)
        if not answered and received > self._limit_bytes:
            await self._refuse(scope, send, self._too_large())

    def _fault_of_head(self, scope: Scope) -> SluiceError | None:
        for name, value in scope["headers"]:
            if name == b"content-encoding" and value.lower() != b"identity":
                return ContentEncoded()
            if name == b"content-length" and is_longer(value, self._limit_bytes) and not is_upload(scope):
                return self._too_large()
        return None

    async def _refuse(self, scope: Scope, send: Send, error: SluiceError) -> None:
        status, headers, body = render(scope["path"], error)
        # The rest of the body is not read, so the connection cannot be used again.
        await answer(send, (status, {**headers, "connection": "close"}, body))

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"the body is larger than {self._limit_bytes} bytes")


async def answer(send: Send, rendered: Rendered) -> None:
    """Send an error as it was rendered."""
    status, headers, body = rendered
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    pairs.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})


def is_upload(scope: Scope) -> bool:
    # Exactly: a label may be named `versions`, and its route reads the body whole.
    return scope["method"] in ("POST", "PUT") and UPLOAD.fullmatch(scope["path"]) is not None


def route_of(scope: Scope) -> str:
    """The route's template: a closed list, where the path itself would make a series of every typing error."""
    route = scope.get("route")
    return str(getattr(route, "path", "unmatched"))


def outcome_of(status: int) -> str:
    """A closed list of outcomes for metrics: ok, invalid (the caller's doing), refused, unavailable, failed."""
    if status < 400:
        return "ok"
    if status in (401, 403, 429):
        return "refused"
    if status < 500:
        return "invalid"
    return "unavailable" if status in (503, 504) else "failed"
