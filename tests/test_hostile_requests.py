"""Requests made to harm: what strangers may send before anybody knows who they are, and odd bytes in headers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Message, Receive, Scope, Send

from auth.scopes import Scope as Right
from gateway import request_heads
from gateway.app import OTHER_BODY_BYTES, create_app
from gateway.predictions import PredictionEndpoint
from gateway.request_heads import BoundedHeads
from tests.quiet_gateway import QuietGateway, quiet_gateway

MIB = 1024**2


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as running:
        yield running


def connect(gateway: QuietGateway) -> socket.socket:
    return socket.create_connection(("127.0.0.1", gateway.http.base_url.port), timeout=20)


@pytest.mark.parametrize("path", ["/admin/clients", "/admin/models/m/labels/stable", "/admin/models/m/labels/versions"])
def test_without_a_token_no_byte_of_a_body_is_waited_for(gateway: QuietGateway, path: str):
    method = "POST" if path == "/admin/clients" else "PUT"
    with connect(gateway) as stranger:
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
        stranger.sendall(head.encode())
        assert stranger.recv(1000).startswith(b"HTTP/1.1 401 ")


def test_malformed_json_without_a_token_is_refused_for_the_token(gateway: QuietGateway):
    assert gateway.http.post("/admin/clients", content=b"{").status_code == 401


def test_a_label_named_versions_is_no_upload(gateway: QuietGateway):
    headers = gateway.headers("labeller", [Right.MODELS_WRITE])
    body = b'{"version": 1' + b" " * gateway.parts.settings.body_limit_bytes + b"}"
    answer = gateway.http.put("/admin/models/m/labels/versions", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


def test_what_is_parsed_on_the_event_loop_is_short(gateway: QuietGateway):
    headers = gateway.headers("talker", [Right.CLIENTS_ADMIN])
    assert (
        gateway.http.post("/admin/clients", content=b"[" * (OTHER_BODY_BYTES + 1), headers=headers).status_code == 413
    )


@pytest.mark.parametrize("wait", [b"wait=\xb2", b"wait=\xb95, respond-async", b"wait=" + b"9" * 5000])
def test_a_wait_that_is_no_number_is_ignored(gateway: QuietGateway, wait: bytes):
    headers = gateway.headers(f"waiter-{len(wait)}", [Right.PREDICT])
    answer = gateway.http.post("/v1/models/m:predict", json={}, headers=[*headers.items(), ("prefer", wait)])
    assert answer.status_code == 404


def test_addresses_that_are_no_predictions_are_not_remembered(gateway: QuietGateway):
    async def answer_nothing(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None: ...

    endpoint = PredictionEndpoint(answer_nothing, gateway.parts)

    async def ask() -> None:
        for number in range(20):
            await endpoint({"type": "http", "method": "POST", "path": f"/{number}{'a' * MIB}"}, receive, send)

    tracemalloc.start()
    try:
        asyncio.run(ask())
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 5 * MIB


def test_the_description_which_strangers_may_ask_for_is_made_once(gateway: QuietGateway):
    app = create_app(gateway.parts.settings)
    assert app.openapi() is app.openapi()


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, int]]:
    """A server whose connections are the gateway's, with an application that says yes."""

    async def agree(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        while (await receive()).get("more_body"):
            continue
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    server = uvicorn.Server(
        uvicorn.Config(agree, port=0, http=BoundedHeads, lifespan="off", log_config=None, ws="none")
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < until
            time.sleep(0.01)
        yield server.servers[0].sockets[0].getsockname()
    finally:
        server.should_exit = True
        thread.join(20)


def answer_to(address: tuple[str, int], *pieces: bytes) -> bytes:
    """What comes back until the server closes, or the first 1,000 bytes; empty where nothing does."""
    with socket.create_connection(address, timeout=20) as stranger, contextlib.suppress(ConnectionError):
        for piece in pieces:
            stranger.sendall(piece)
        return stranger.recv(1000)
    return b""


@pytest.mark.parametrize("begin", [b"GET /", b"GET / HTTP/1.1\r\nX: ", b"GET / HTTP/1.1\r\n"])
def test_a_head_without_end_is_cut_off(begin: bytes):
    line = b"a" * 1000 if begin[-1:] in (b"/", b" ") else b"X-Header: value\r\n" * 60
    with listening() as address:
        # Bounded by what passes before the server has closed, not by what the stranger has.
        answer = answer_to(address, begin, *[line] * 100_000)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")


def test_a_head_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_heads, "MOST_SECONDS", 0.1)
    with listening() as address:
        assert answer_to(address) == b""
        assert answer_to(address, b"GET / HT") == b""
        assert answer_to(address, b"GET / HTTP/1.1\r\nHost: x\r\nX") == b""


def test_a_long_body_and_a_second_request_are_no_long_head(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(request_heads, "MOST_BYTES", 1000)
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5000000\r\n\r\n" + b"b" * 5_000_000
    with listening() as address, socket.create_connection(address, timeout=20) as client:
        for _ in range(2):
            client.sendall(request)
            assert client.recv(1000).startswith(b"HTTP/1.1 204 ")
