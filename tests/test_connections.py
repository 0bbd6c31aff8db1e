"""Callers who send or read slowly, or connect too often: they are cut off, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from gateway import connections, joined_writes, request_heads
from gateway.certificates import LiveContext, TlsFiles
from gateway.connections import network_of
from gateway.listening import OTHER_DESCRIPTORS, descriptors, within_descriptors
from gateway.settings import GatewaySettings
from tests.authorities import Authority
from tests.live_gateway import BOUNDS, eventually
from tests.transport_kit import Asked, connect, head, served, until_closed

CROWD = 200
MIB = 1024**2


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes 20 seconds elsewhere takes a fifth of one here."""
    monkeypatch.setattr(request_heads, "MOST_SECONDS", 0.2)
    monkeypatch.setattr(connections, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(joined_writes, "UNREAD_SECONDS", 0.2)


@contextlib.contextmanager
def crowd(port: int, beginning: bytes) -> Iterator[list[socket.socket]]:
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(connect(port)) for _ in range(CROWD)]
        for connection in found:
            connection.sendall(beginning)
        yield found


@pytest.mark.parametrize(
    "beginning", [b"", b"GET / HT", head("POST", Content_Length=100_000), head("POST", Transfer_Encoding="chunked")]
)
@pytest.mark.usefixtures("impatient")
def test_a_crowd_of_slow_callers_keeps_nobody_waiting_and_is_sent_away(beginning: bytes):
    with served(Asked()) as port, crowd(port, beginning) as slow, httpx.Client() as other:
        answers = [other.post(f"http://127.0.0.1:{port}/", content=b"quick").status_code for _ in range(20)]
        assert answers == [200] * 20
        assert {until_closed(connection)[:13] for connection in slow} <= {b"", b"HTTP/1.1 408 "}


@pytest.mark.parametrize(
    ("path", "kind", "code"), [("/v1/jobs", "application/problem+json", "body_too_slow"), ("/v1/models/m", None, None)]
)
@pytest.mark.usefixtures("impatient")
def test_a_body_that_only_drips_is_408_in_the_shape_of_its_path(path: str, kind: str | None, code: str | None):
    asked = Asked()
    with served(asked) as port, connect(port) as slow:
        slow.sendall(head("POST", path, Content_Length=100_000))
        ended = threading.Event()
        dripping = threading.Thread(target=drip, args=(slow, ended))
        dripping.start()
        answer = slow.recv(65536)
        ended.set()
        dripping.join(20)
    first, body = answer.split(b"\r\n\r\n", 1)
    assert first.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in first
    assert b"x-content-type-options: nosniff" in first
    assert (kind or "application/json").encode() in first
    assert (code or "the body comes too slowly").encode() in body
    assert asked.requests == []


def drip(connection: socket.socket, ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while not ended.wait(0.02):
            connection.sendall(b"x")


@pytest.mark.usefixtures("impatient")
def test_a_body_that_comes_fast_enough_may_take_its_time(monkeypatch: pytest.MonkeyPatch):
    # Between two looks there is time for a sender whom a busy machine holds up.
    monkeypatch.setattr(connections, "LOOK_SECONDS", 1.0)
    asked = Asked()
    with served(asked, bounds=replace(BOUNDS, least_bytes_per_second=100)) as port, connect(port) as steady:
        steady.sendall(head("POST", Content_Length=5000))
        for _ in range(100):
            steady.sendall(b"x" * 50)
            time.sleep(0.025)
        assert steady.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert len(asked.requests[0][2]) == 5000


@pytest.mark.parametrize("headers", [{"Expect": "100-continue"}, {}])
@pytest.mark.usefixtures("impatient")
def test_a_caller_who_waits_for_us_is_not_slow(headers: dict[str, str]):
    class Busy(Asked):
        """Lets a caller wait before it reads what was sent."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.sleep(0.6)
            await super().__call__(scope, receive, send)

    busy = Busy()
    with served(busy) as port, connect(port) as patient:
        patient.sendall(head("POST", Content_Length=200_000, **headers))
        if headers:
            assert patient.recv(1000).startswith(b"HTTP/1.1 100 ")
        # Without being asked for it, more than is read ahead, and then the rest.
        patient.sendall(b"x" * 150_000)
        time.sleep(0.0 if headers else 0.5)
        patient.sendall(b"x" * 50_000)
        assert patient.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert len(busy.requests[0][2]) == 200_000


@pytest.mark.usefixtures("impatient")
def test_empty_lines_keep_no_connection_open():
    with served(Asked()) as port, connect(port) as idle:
        idle.sendall(head())
        assert idle.recv(1000).startswith(b"HTTP/1.1 200 ")
        with contextlib.suppress(OSError):
            for _ in range(1000):
                idle.sendall(b"\r\n")
                time.sleep(0.02)
        assert until_closed(idle) == b""


async def generous(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
    """Answers with more than the kernel takes for a caller who does not read."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % (64 * MIB))]})
    for _ in range(64):
        await send({"type": "http.response.body", "body": b"x" * MIB, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.usefixtures("impatient")
def test_who_does_not_read_an_answer_is_cut_off(encrypted: bool, tmp_path: Path):
    authority = Authority(tmp_path, "authority")
    pair = authority.issue("server")
    tls = LiveContext(TlsFiles(pair.certificate, pair.key)) if encrypted else None
    with served(generous, tls=tls) as port:
        reader = connect(port)
        if encrypted:
            reader = authority.trusted().wrap_socket(reader, server_hostname="127.0.0.1")
        with reader:
            reader.sendall(head())
            time.sleep(2)
            with contextlib.suppress(OSError):
                assert sum(iter(lambda: len(reader.recv(MIB)), 0)) < 64 * MIB


@pytest.mark.usefixtures("impatient")
def test_who_reads_slowly_but_reads_has_everything():
    with served(generous, bounds=replace(BOUNDS, least_bytes_per_second=1024)) as port, connect(port) as reader:
        reader.sendall(head())
        received = 0
        while received < 64 * MIB:
            piece = reader.recv(MIB)
            assert piece
            received += len(piece)
            time.sleep(0.005)


@pytest.mark.usefixtures("impatient")
def test_a_last_answer_that_nobody_reads_is_not_kept():
    async def hasty(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI's signature
        headers = [(b"content-length", b"%d" % (16 * MIB)), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"x" * 16 * MIB})

    with served(hasty, bounds=replace(BOUNDS, least_bytes_per_second=1)) as port, connect(port) as reader:
        reader.sendall(head())
        time.sleep(2)
        with contextlib.suppress(OSError):
            assert sum(iter(lambda: len(reader.recv(MIB)), 0)) < 16 * MIB


@pytest.mark.parametrize(
    ("bounds", "status", "code"),
    [
        (replace(BOUNDS, connections=5), b"503", b"connections_exhausted"),
        (replace(BOUNDS, per_address=5), b"429", b"address_connections_exhausted"),
    ],
)
def test_one_connection_too_many_is_told_so_and_there_is_room_again_when_one_goes(
    bounds: connections.ConnectionBounds, status: bytes, code: bytes
):
    asked = Asked()
    with served(asked, bounds=bounds) as port, contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(port)) for _ in range(5)]
        for connection in held:
            connection.sendall(head())
            assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
        with connect(port) as late:
            late.sendall(head())
            refusal = until_closed(late)
        assert refusal.startswith(b"HTTP/1.1 " + status)
        assert code in refusal
        assert b"retry-after: 1\r\n" in refusal
        assert len(asked.requests) == 5
        held[0].close()
        eventually(lambda: is_answered(port))
        held[1].sendall(head())
        assert held[1].recv(1000).startswith(b"HTTP/1.1 200 ")


def is_answered(port: int) -> bool:
    with connect(port) as connection:
        connection.sendall(head(Connection="close"))
        return until_closed(connection).startswith(b"HTTP/1.1 200 ")


def test_who_is_refused_and_says_nothing_is_sent_away_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(connections, "REFUSAL_SECONDS", 0.1)
    monkeypatch.setattr(connections, "MOST_REFUSALS", 1)
    with served(Asked(), bounds=replace(BOUNDS, connections=1)) as port, connect(port) as first:
        first.sendall(head())
        assert first.recv(1000).startswith(b"HTTP/1.1 200 ")
        with connect(port) as refused, connect(port) as cut:
            assert until_closed(cut) == until_closed(refused) == b""


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_an_address_counts_as_the_smallest_thing_that_is_given_to_anybody(address: str, network: str):
    assert network_of(address) == network


def test_bounds_fit_what_the_system_holds_open(monkeypatch: pytest.MonkeyPatch):
    found = [(1024, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: found[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: found.append(limits))
    assert within_descriptors(replace(BOUNDS, connections=2000)).connections == 2000
    assert found[-1] == (2000 + OTHER_DESCRIPTORS, 4096)
    assert within_descriptors(replace(BOUNDS, connections=8000)).connections == 4096 - OTHER_DESCRIPTORS
    assert found[-1] == (4096, 4096)


def test_a_connection_of_grpc_s_counts_with_its_way_to_the_server_behind(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (4096, 4096))
    each = descriptors(GatewaySettings(client_secret_key="k" * 32, master_key="m" * 43, grpc_port=8081))
    assert within_descriptors(replace(BOUNDS, connections=4096), each).connections == (4096 - OTHER_DESCRIPTORS) // 4
