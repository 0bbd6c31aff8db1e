"""Answers that are written as a whole: the same bytes as in two messages, and never another line in a head."""

from __future__ import annotations

import socket

import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.whole_answers import send_whole
from tests.transport_kit import connect, served, until_closed

BODY = b'{"predictions": [1]}'
HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY)), (b"x-request-id", b"a" * 16)]


class InTwo:
    """The same answer by uvicorn's own way."""

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        async def wrapped(message: Message) -> None:
            await send(message)

        await send_whole(wrapped, 200, HEADERS, BODY)


class AsOne:
    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_whole(send, 200, HEADERS, BODY)


class Closing:
    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_whole(send, 413, [*HEADERS, (b"connection", b"close")], BODY)


class Split:
    def __init__(self, value: bytes) -> None:
        self.value = value

    async def __call__(self, _scope: Scope, _receive: Receive, send: Send) -> None:
        await send_whole(send, 200, [*HEADERS, (b"x-said", self.value)], BODY)


def asked(connection: socket.socket, version: str = "1.1", more: str = "") -> None:
    connection.sendall(f"GET / HTTP/{version}\r\nHost: x\r\n{more}\r\n".encode())


@pytest.mark.parametrize(("version", "more"), [("1.1", "Connection: close\r\n"), ("1.0", "")])
def test_it_is_the_same_answer_in_one_piece_and_in_two(version: str, more: str):
    received = []
    for app in (InTwo(), AsOne()):
        with served(app) as port, connect(port) as connection:
            asked(connection, version, more)
            received.append(until_closed(connection))
    assert received[0] == received[1]
    assert received[0].endswith(b"\r\n\r\n" + BODY)
    assert b"connection: close\r\n" in received[1]


def test_a_connection_is_used_again_and_answers_keep_their_order():
    with served(AsOne()) as port, connect(port) as connection:
        asked(connection)
        asked(connection)
        asked(connection, more="Connection: close\r\n")
        assert until_closed(connection).count(BODY) == 3


def test_an_answer_that_closes_closes():
    with served(Closing()) as port, connect(port) as connection:
        asked(connection)
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.count(b"connection: close\r\n") == 1


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b", b"\r\n\r\nbody"])
def test_no_value_begins_another_line(value: bytes, caplog: pytest.LogCaptureFixture):
    with served(Split(value)) as port, connect(port) as connection:
        asked(connection, more="Connection: close\r\n")
        answer = until_closed(connection)
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in answer
    assert "line end or a NUL" in caplog.text
