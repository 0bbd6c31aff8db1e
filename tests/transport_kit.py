"""The gateway's server around an application of the test's own: its connections, bounds and TLS are the real ones."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.certificates import LiveContext
from gateway.connections import ConnectionBounds
from tests.live_gateway import BOUNDS, listening


@dataclass
class Asked:
    """An application that says yes to everything, and what it was asked: method, path and body."""

    requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    scopes: list[Scope] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message["body"]
            if not message["more_body"]:
                break
        else:
            return
        self.requests.append((scope["method"], scope["path"], body))
        self.scopes.append(scope)
        answer = json.dumps({"extensions": scope.get("extensions"), "scheme": scope["scheme"]}).encode()
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@contextlib.contextmanager
def served(app: ASGIApp, *, tls: LiveContext | None = None, bounds: ConnectionBounds = BOUNDS) -> Iterator[int]:
    """The application under the gateway's own server, in a thread; its port."""
    with listening(app, "off", tls=tls, bounds=bounds) as url:
        yield int(url.rpartition(":")[2])


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def until_closed(connection: socket.socket) -> bytes:
    """All that comes before the server closes; fails where it does not within 20 seconds."""
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := connection.recv(65536):
            received += piece
    return received


def head(method: str = "GET", path: str = "/", **headers: object) -> bytes:
    """The head of a request as on the wire."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
