"""Receivers of webhooks: real HTTPS servers on this machine that answer as a test tells them to."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.authorities import Authority

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, **fields: str) -> Answer:
    """An answer with this status and fields (`_` for `-`), without a body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in fields.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


TAKEN = status(204)


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    path: str
    fields: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.fields["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(slots=True)
class Receiver:
    """What came to an address; `answers` are given one after the other, the last one ever after."""

    url: str
    port: int
    received: list[Received] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=lambda: [TAKEN])

    def next_answer(self) -> Answer:
        return self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)


@contextlib.contextmanager
def receiving(folder: Path, *, tls: bool = True) -> Iterator[Receiver]:
    """A receiver on a port of its own; `folder / "hooks" / "ca.pem"` is what its certificate is checked against."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    port = server.server_address[1]
    receiver = Receiver(f"{'https' if tls else 'http'}://localhost:{port}/hook?a=1", port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            fields = {name.lower(): value for name, value in self.headers.items()}
            receiver.received.append(Received(self.path, fields, body))
            with contextlib.suppress(OSError):
                receiver.next_answer()(self)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the requests are kept instead."""

    server.RequestHandlerClass = Handler
    server.daemon_threads = True
    if tls:
        pair = Authority(folder, "hooks").issue("receiver")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
