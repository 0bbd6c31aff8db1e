"""A gRPC call as a request to the application in this process: what HTTP callers meet, gRPC's callers meet as well.

Metadata become headers, the connection's other end the client, its TLS certificate what a bound token asks for, and
the end of the call (canceled, or its deadline passed) a caller who hangs up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import grpc
from starlette.types import ASGIApp, Message, Scope

from gateway.grpc_services.failures import CallFailed, code_of, pushback
from gateway.prediction_bodies import RawHeaders

log = logging.getLogger(__name__)

# Of a request's own making here, of a hop, or of a browser's session: none of them is a caller's to say.
DROPPED = frozenset(
    {
        "host", "connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "cookie",
        "inference-header-content-length", "accept-encoding", "accept", "origin",
    }
)  # fmt: skip
DROPPED_PREFIXES = ("content-", "grpc-", ":", "x-forwarded-")
BINARY = "-bin"
# RFC 9110, section 5.5: no line break and no other control character but the tab; gRPC's server takes them all.
VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
# What an answer's headers tell beside the answer itself; it goes out as trailing metadata.
TOLD = frozenset(
    {
        b"x-request-id", b"sluice-model-version", b"ratelimit", b"ratelimit-policy", b"retry-after", b"location",
        b"preference-applied", b"idempotent-replayed", b"www-authenticate",
    }
)  # fmt: skip
# How long requests whose callers are gone may take to end when the server stops.
LEAVING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection: its address, and the SHA-256 of its certificate as `x5t#S256` writes it."""

    client: tuple[str, int]
    thumbprint: str | None = None


@dataclass(slots=True)
class Call:
    """One call of `/service/method`: by whom, with which headers; `trailers` is what it is told beside its answer."""

    method: str
    request_id: str
    headers: RawHeaders
    peer: Peer
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def extensions(self) -> dict[str, dict[str, str]]:
        """As ASGI's extension for TLS has them."""
        thumbprint = self.peer.thumbprint
        return {} if thumbprint is None else {"tls": {"client_cert_thumbprint": thumbprint}}


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of the application; the names of headers are in lower case."""

    status: int
    headers: Mapping[bytes, bytes]
    body: bytes

    def json(self) -> dict[str, object]:
        """The document that an answer of ours is."""
        found = json.loads(self.body)
        return found if isinstance(found, dict) else {"": found}


def headers_of(metadata: Iterable[tuple[str, str | bytes]]) -> RawHeaders:
    """A call's metadata as headers; binary ones have no counterpart, nor have values that HTTP would not take."""
    return [
        (name.encode(), value.encode("latin-1", "replace"))
        for name, value in metadata
        if isinstance(value, str)
        and VALUE.fullmatch(value)
        and name not in DROPPED
        and not name.startswith(DROPPED_PREFIXES)
        and not name.endswith(BINARY)
    ]


class Exchange:
    """One request in ASGI's messages, and the answer that comes back."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._status = 0
        self._headers: RawHeaders = []
        self._pieces: list[bytes] = []
        self._complete = False

    async def receive(self) -> Message:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
        elif message["type"] == "http.response.body":
            self._pieces.append(message.get("body", b""))
            self._complete = not message.get("more_body", False)

    def hang_up(self) -> None:
        self._gone.set()

    def reply(self) -> Reply:
        """The whole answer; raises CallFailed where there is none."""
        if not self._complete:
            raise CallFailed(grpc.StatusCode.CANCELLED, "the call was given up before it was answered")
        return Reply(self._status, dict(self._headers), b"".join(self._pieces))


class Application:
    """The application behind the calls. Used from its event loop alone."""

    def __init__(self, app: ASGIApp, scheme: str) -> None:
        self._app = app
        self._scheme = scheme
        self._leaving: set[asyncio.Task[None]] = set()

    async def ask(
        self, call: Call, method: str, path: str, body: bytes = b"", headers: RawHeaders | None = None
    ) -> Reply:
        """The answer to a request in a call's name; a path's parts are not escaped.

        `headers` describe the body. Whatever the call should be told beside its answer is noted in its trailers. Raises
        CallFailed for every answer of 400 and more.
        """
        exchange = Exchange(body)
        scope = self._scope(call, method, path, [*(headers or ()), (b"content-length", b"%d" % len(body))])
        running = asyncio.ensure_future(self._run(scope, exchange))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            # The request ends in its own order, as one whose caller has hung up: a transaction is not cut in two.
            exchange.hang_up()
            self._leaving.add(running)
            running.add_done_callback(self._leaving.discard)
            raise
        reply = exchange.reply()
        told = {name.decode(): value.decode("latin-1") for name, value in reply.headers.items() if name in TOLD}
        call.trailers.update(told)
        if reply.status >= 400:
            raise _failure(reply)
        return reply

    async def close(self) -> None:
        """Wait a moment for requests whose callers are gone."""
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=LEAVING_SECONDS)

    async def _run(self, scope: Scope, exchange: Exchange) -> None:
        await self._app(scope, exchange.receive, exchange.send)

    def _scope(self, call: Call, method: str, path: str, headers: RawHeaders) -> Scope:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "method": method,
            "scheme": self._scheme,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [*call.headers, *headers],
            "client": call.peer.client,
            "server": None,
            "extensions": call.extensions,
            "state": {},
        }


def _failure(reply: Reply) -> CallFailed:
    after = reply.headers.get(b"retry-after", b"")
    seconds = int(after) if after.isdigit() else None
    return CallFailed(code_of(reply.status), _text(reply), pushback(reply.status, seconds))


def _text(reply: Reply) -> str:
    """What an error's document says, whichever of our shapes it has."""
    try:
        document = reply.json()
    except ValueError:
        return f"status {reply.status}"
    told = document.get("error", document.get("detail"))
    return told if isinstance(told, str) else f"status {reply.status}"
