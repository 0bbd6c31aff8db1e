"""Pings of the gRPC port: who answers none is given up, and who sends too many is sent away."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest

from gateway.grpc_services.listening import MOST_PING_STRIKES
from sluice.listening_ports import free_port
from tests.conftest import RedisServer
from tests.live_gateway import LiveGateway, live_gateway

KEEPALIVE_SECONDS = 1.0  # the least that the setting allows
LEAST_PING_SECONDS = 5.0
# Frames of HTTP/2 (RFC 9113, section 6), and the code that a peer is sent away with.
SETTINGS, PING, GOAWAY = 4, 6, 7
ACK = 1
ENHANCE_YOUR_CALM = 11
HEAD = struct.Struct(">HBBBI")  # length in three bytes, type, flags, stream


@pytest.fixture(scope="module")
def gateway(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveGateway]:
    with live_gateway(
        tmp_path_factory.mktemp("keepalive"),
        redis_url=redis_server.url,
        key_prefix="grpc-keepalive",
        grpc_port=free_port(),
        grpc_keepalive_seconds=KEEPALIVE_SECONDS,
        grpc_least_ping_seconds=LEAST_PING_SECONDS,
    ) as made:
        yield made


class Peer:
    """A caller that speaks HTTP/2's frames and makes no call."""

    def __init__(self, gateway: LiveGateway) -> None:
        self._socket = socket.create_connection(("127.0.0.1", gateway.parts.settings.grpc_port), 20)
        self._stream = self._socket.makefile("rb")
        self._socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        self.send(SETTINGS)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._socket.close()

    def send(self, kind: int, payload: bytes = b"", flags: int = 0) -> None:
        self._socket.sendall(HEAD.pack(len(payload) >> 8, len(payload) & 255, kind, flags, 0) + payload)

    def frames(self) -> Iterator[tuple[int, int, bytes]]:
        """Type, flags and payload of each frame that comes, until the connection ends."""
        while head := self._stream.read(HEAD.size):
            high, low, kind, flags, _ = HEAD.unpack(head)
            yield kind, flags, self._stream.read((high << 8) + low)


def test_a_peer_that_answers_no_ping_is_given_up(gateway: LiveGateway):
    begin = time.monotonic()
    with Peer(gateway) as silent:
        pings = [kind for kind, flags, _ in silent.frames() if (kind, flags) == (PING, 0)]
    took = time.monotonic() - begin
    assert len(pings) == 1, "it was asked whether it is still there"
    assert took >= 1.4 * KEEPALIVE_SECONDS, "and had half as long again for its answer"
    assert took < 10 * KEEPALIVE_SECONDS


def test_a_peer_that_answers_pings_keeps_its_connection(gateway: LiveGateway):
    begin, answered = time.monotonic(), 0
    with Peer(gateway) as alive:
        for kind, flags, payload in alive.frames():
            if (kind, flags) == (PING, 0):
                alive.send(PING, payload, ACK)
                answered += 1
            if answered == 2:
                break
    assert answered == 2, "it is asked again after it answered"
    assert time.monotonic() - begin >= 1.9 * KEEPALIVE_SECONDS


def test_a_peer_that_pings_too_often_is_sent_away(gateway: LiveGateway):
    pings = MOST_PING_STRIKES + 2  # the first one is no strike
    with Peer(gateway) as eager:
        for number in range(pings):
            eager.send(PING, number.to_bytes(8))
        (said,) = [payload for kind, _, payload in eager.frames() if kind == GOAWAY]
    assert int.from_bytes(said[4:8]) == ENHANCE_YOUR_CALM
    assert said[8:] == b"too_many_pings"
