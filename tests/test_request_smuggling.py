"""Requests in which a proxy in front may read something else than the gateway: refused, and nothing after them is read.

Each is sent as it stands over a socket, with a second request behind it that must never be one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from starlette.types import Receive, Scope, Send

from gateway import request_heads
from tests.transport_kit import Asked, connect, head, served, until_closed

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
START = b"POST /first HTTP/1.1\r\nHost: x\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "a length and chunks": START + b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nG",
    "chunks and a length": START + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n",
    "a space before the colon": START + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "another coding": START + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "no coding": START + b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunks of another coding": START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks last": START + b"Transfer-Encoding: x, chunked\r\n\r\n0\r\n\r\n",
    "chunks first": START + b"Transfer-Encoding: chunked, x\r\n\r\n0\r\n\r\n",
    "chunks twice": START + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two codings, the same": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two codings, chunks first": START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "two codings, chunks last": START + b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks in quotes": START + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunks with a parameter": START + b"Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    "an empty coding": START + b"Transfer-Encoding: \r\n\r\n0\r\n\r\n",
    "a vertical tab": START + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "a folded coding": START + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"POST /first HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths, the same": START + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    "two lengths": START + b"Content-Length: 0\r\nContent-Length: 2\r\n\r\nhi",
    "a list of lengths": START + b"Content-Length: 2, 2\r\n\r\nhi",
    "a length with a plus": START + b"Content-Length: +2\r\n\r\nhi",
    "a length below zero": START + b"Content-Length: -2\r\n\r\nhi",
    "a length in hexadecimal": START + b"Content-Length: 0x2\r\n\r\nhi",
    "a length with a space in it": START + b"Content-Length: 1 2\r\n\r\nhi",
    "an empty length": START + b"Content-Length: \r\n\r\nhi",
    "a length over 64 bits": START + b"Content-Length: 18446744073709551618\r\n\r\nhi",
    "a length and a space": START + b"Content-Length : 2\r\n\r\nhi",
    "a folded line": START + b"X: a\r\n b\r\n\r\n",
    "a folded first line": b"POST /first HTTP/1.1\r\n Host: x\r\n\r\n",
    "line feeds alone": b"GET /first HTTP/1.1\nHost: x\n\n",
    "one line feed alone": b"GET /first HTTP/1.1\r\nHost: x\nX: y\r\n\r\n",
    "a line feed at the end": b"GET /first HTTP/1.1\r\nHost: x\r\n\n",
    "a return alone": b"GET /first HTTP/1.1\r\nHost: x\rX: y\r\n\r\n",
    "a return in a value": START + b"A: b\rc\r\n\r\n",
    "two returns": b"GET /first HTTP/1.1\r\nHost: x\r\r\n\r\n",
    "a NUL in a value": START + b"A: b\0c\r\n\r\n",
    "a NUL in a name": START + b"A\0: b\r\n\r\n",
    "a control character": START + b"A: b\x01c\r\n\r\n",
    "a header without a colon": START + b"Authorization\r\n\r\n",
    "a header without a name": START + b": x\r\n\r\n",
    "a chunk over 64 bits": CHUNKED + b"FFFFFFFFFFFFFFFFF\r\nhi\r\n0\r\n\r\n",
    "a chunk that wraps around": CHUNKED + b"10000000000000002\r\nhi\r\n0\r\n\r\n",
    "an extension and a line feed": CHUNKED + b"2;a\nhi\r\n0\r\n\r\n",
    "an extension and a return": CHUNKED + b"2;a\rb\r\nhi\r\n0\r\n\r\n",
    "chunks and line feeds": CHUNKED + b"2\nhi\n0\n\n",
    "a chunk with a prefix": CHUNKED + b"0x2\r\nhi\r\n0\r\n\r\n",
    "a chunk and a space": CHUNKED + b"2 \r\nhi\r\n0\r\n\r\n",
    "a space and a chunk": CHUNKED + b" 2\r\nhi\r\n0\r\n\r\n",
    "a chunk below zero": CHUNKED + b"-2\r\nhi\r\n0\r\n\r\n",
    "a chunk that goes on": CHUNKED + b"2\r\nhiX\r\n0\r\n\r\n",
    "a chunk without a size": CHUNKED + b"\r\nhi\r\n0\r\n\r\n",
    "a trailer": CHUNKED + b"2\r\nhi\r\n0\r\nAuthorization: Bearer x\r\n\r\n",
    "a trailing length": CHUNKED + b"2\r\nhi\r\n0\r\nContent-Length: 5\r\n\r\n",
    "HTTP/0.9": b"GET /first\r\n\r\n",
    "HTTP/1.2": b"GET /first HTTP/1.2\r\nHost: x\r\n\r\n",
    "a small http": b"GET /first http/1.1\r\nHost: x\r\n\r\n",
    "HTTP/2 without being asked": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "the absolute form": b"GET http://evil/first HTTP/1.1\r\nHost: x\r\n\r\n",
    "the absolute form with a user": b"GET http://u@evil:80/first HTTP/1.1\r\nHost: x\r\n\r\n",
    "another scheme": b"GET ftp://evil/first HTTP/1.1\r\nHost: x\r\n\r\n",
    "the authority form": b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "an authority": b"GET evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "the asterisk form": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "a relative path": b"GET first HTTP/1.1\r\nHost: x\r\n\r\n",
    "two Hosts": b"GET /first HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    "no Host": b"GET /first HTTP/1.1\r\n\r\n",
    "an empty Host": b"GET /first HTTP/1.1\r\nHost:\r\n\r\n",
    "a Host with a query": b"GET /first HTTP/1.1\r\nHost: a?b\r\n\r\n",
    "a Host with a path": b"GET /first HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "a Host with a user": b"GET /first HTTP/1.1\r\nHost: x@evil\r\n\r\n",
    "a Host with a space": b"GET /first HTTP/1.1\r\nHost: x y\r\n\r\n",
    "another expectation": START + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nhi",
    "an upgrade with a body": START + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    "an upgrade with chunks": CHUNKED[:-2] + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n0\r\n\r\n",
    "a space before the line": b" GET /first HTTP/1.1\r\nHost: x\r\n\r\n",
    "tabs in the line": b"GET\t/first\tHTTP/1.1\r\nHost: x\r\n\r\n",
    "a small method": b"get /first HTTP/1.1\r\nHost: x\r\n\r\n",
    "an unknown method": b"FOO /first HTTP/1.1\r\nHost: x\r\n\r\n",
    "a control character in the path": b"GET /first\x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a byte that is no character in the path": b"GET /first\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a NUL in the path": b"GET /fi\0rst HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /first#x HTTP/1.1\r\nHost: x\r\n\r\n",
    "an encoded slash": b"GET /a%2Fb HTTP/1.1\r\nHost: x\r\n\r\n",
    "an encoded backslash": b"GET /a%5cb HTTP/1.1\r\nHost: x\r\n\r\n",
    "an encoded NUL": b"GET /a%00b HTTP/1.1\r\nHost: x\r\n\r\n",
    "an encoded line end": b"GET /a%0d%0aSet-Cookie:%20x HTTP/1.1\r\nHost: x\r\n\r\n",
}

# What is unusual and right, and what is answered with the connection's end.
ANSWERED = {
    "a plain one": (START + b"Content-Length: 2\r\n\r\nhi", b"hi"),
    "chunks": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n", b"hi"),
    "chunks in capitals": (START + b"Transfer-Encoding: CHUNKED\r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
    "chunks after a tab": (START + b"Transfer-Encoding:\tchunked \r\n\r\n2\r\nhi\r\n0\r\n\r\n", b"hi"),
    "a chunk with an extension": (CHUNKED + b'2;a="b"\r\nhi\r\n0\r\n\r\n', b"hi"),
    "a length with zeros before it": (START + b"Content-Length: 0002\r\n\r\nhi", b"hi"),
    "lines before it": (b"\r\n\r\n" + START + b"Content-Length: 2\r\n\r\nhi", b"hi"),
    "an expectation": (START + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "a value in Latin-1": (START + b"A: \xe9\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "an encoded slash in the query": (b"POST /first?a=%2F%00 HTTP/1.1\r\nHost: x\r\n\r\n", b""),
    "a Host that is an address": (b"POST /first HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", b""),
    "a Host with an underscore": (b"POST /first HTTP/1.1\r\nHost: my_gateway:8080\r\n\r\n", b""),
}
CLOSED = {
    "HTTP/1.0": b"POST /first HTTP/1.0\r\n\r\n",
    "a version that never was": b"POST /first HTTP/2.0\r\nHost: x\r\n\r\n",
    "h2c": START + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    "a WebSocket": START + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a\r\n\r\n",
    "the last one": START + b"Connection: close\r\n\r\n",
}


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Asked, int]]:
    asked = Asked()
    with served(asked) as port:
        yield asked, port


@pytest.fixture
def gateway(running: tuple[Asked, int]) -> tuple[Asked, int]:
    running[0].requests.clear()
    return running


@pytest.mark.parametrize("case", REFUSED)
def test_what_others_may_read_differently_is_refused_and_the_connection_ends(gateway: tuple[Asked, int], case: str):
    asked, port = gateway
    with connect(port) as stranger:
        stranger.sendall(REFUSED[case] + SMUGGLED)
        answer = until_closed(stranger)
    assert answer.startswith(b"HTTP/1.1 417 " if case == "another expectation" else b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert b"content-type: application/problem+json\r\n" in answer
    assert len(answer) < 1000
    assert asked.requests == []


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_too_when_it_comes_byte_by_byte_behind_a_good_one(gateway: tuple[Asked, int], case: str):
    asked, port = gateway
    with connect(port) as stranger, contextlib.suppress(ConnectionError):
        stranger.sendall(head("GET", "/good"))
        assert stranger.recv(1000).startswith(b"HTTP/1.1 200 ")
        for place in range(0, len(REFUSED[case]), 7):
            stranger.sendall(REFUSED[case][place : place + 7])
        stranger.sendall(SMUGGLED)
        until_closed(stranger)
    assert asked.requests == [("GET", "/good", b"")]


@pytest.mark.parametrize("case", ANSWERED)
def test_what_is_unusual_and_right_is_answered_and_so_is_what_follows(gateway: tuple[Asked, int], case: str):
    asked, port = gateway
    request, body = ANSWERED[case]
    with connect(port) as caller:
        caller.sendall(request + head("GET", "/next", Connection="close"))
        answers = until_closed(caller)
    assert answers.count(b"HTTP/1.1 200 ") == 2
    assert asked.requests == [("POST", "/first", body), ("GET", "/next", b"")]


@pytest.mark.parametrize("case", CLOSED)
def test_after_the_last_request_nothing_is_read(gateway: tuple[Asked, int], case: str):
    asked, port = gateway
    with connect(port) as caller:
        caller.sendall(CLOSED[case] + SMUGGLED)
        answer = until_closed(caller)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert asked.requests == [("POST", "/first", b"")]


def test_a_request_before_a_malformed_one_keeps_its_answer():
    class Slow(Asked):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.1)
            await super().__call__(scope, receive, send)

    asked = Slow()
    with served(asked) as port, connect(port) as caller:
        caller.sendall(head("GET", "/good") + REFUSED["two lengths"] + SMUGGLED)
        answer = until_closed(caller)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert asked.requests == [("GET", "/good", b"")]


def test_a_body_that_breaks_off_in_the_middle_of_its_answer_ends_it():
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"he", "more_body": True})
        while (await receive())["type"] == "http.request":
            continue
        await send({"type": "http.response.body", "body": b"llo"})

    with served(hasty) as port, connect(port) as caller:
        caller.sendall(CHUNKED)
        assert caller.recv(1000).endswith(b"\r\n\r\nhe")
        caller.sendall(b"no size\r\n")
        assert until_closed(caller) == b""


@pytest.mark.parametrize("beginning", [b"2;a=", b"2\r\nhi\r\n0\r\nX: "])
def test_what_surrounds_a_body_is_bounded(
    gateway: tuple[Asked, int], beginning: bytes, monkeypatch: pytest.MonkeyPatch
):
    asked, port = gateway
    monkeypatch.setattr(request_heads, "MOST_BYTES", 1000)
    with connect(port) as stranger, contextlib.suppress(ConnectionError):
        stranger.sendall(CHUNKED + beginning)
        # Bounded by what passes before the server has closed, not by what the stranger has.
        for _ in range(10_000):
            stranger.sendall(b"a" * 10_000)
        raise AssertionError("all of it was read")
    assert asked.requests == []
