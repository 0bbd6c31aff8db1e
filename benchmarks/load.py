"""Load: keep a number of connections busy for some seconds and time every answer.

`python -m benchmarks.load` reads a `Load` as JSON from standard input and writes a `Measurement` to standard output: a
process of its own, so that it shares no interpreter lock with what it measures. Each connection sends its next request
when the last one is answered (a closed loop), so the figures are those of that many patient callers.
"""

from __future__ import annotations

import contextlib
import json
import math
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass, field

# No server here takes longer for a prediction before it answers with an error.
SILENCE_SECONDS = 35.0
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
GOOD_STATUS = b"HTTP/1.1 200 "
GOOD_BODY = b'{"predictions":[['


@dataclass(frozen=True, slots=True)
class Load:
    """What to send where; connections take the bodies in turn."""

    host: str
    port: int
    path: str
    token: str
    bodies: list[str]
    connections: int
    seconds: float

    def requests(self) -> list[bytes]:
        """The requests as bytes on the wire."""
        return [self.request(body.encode()) for body in self.bodies]

    def request(self, body: bytes) -> bytes:
        head = (
            f"POST {self.path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came back: latencies in milliseconds; `errors` counts answers other than a prediction, by their status."""

    requests: int
    seconds: float
    p50: float
    p90: float
    p99: float
    longest: float
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


class LoadFailed(Exception):
    """The server closed a connection or fell silent: there is nothing to measure."""


class Connection:
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("next", "received", "sent_at", "socket")

    def __init__(self, load: Load, first: int) -> None:
        self.socket = socket.create_connection((load.host, load.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0
        self.next = first

    def send(self, requests: list[bytes]) -> None:
        self.next = (self.next + 1) % len(requests)
        self.sent_at = time.perf_counter()
        self.socket.sendall(requests[self.next])

    def receive(self) -> bytes | None:
        """The whole answer, once it is there."""
        data = self.socket.recv(65536)
        if not data:
            raise LoadFailed("the server closed a connection")
        self.received = self.received + data if self.received else data
        if not is_complete(self.received):
            return None
        answer, self.received = self.received, b""
        return answer


def is_complete(answer: bytes) -> bool:
    end = answer.find(HEAD_END)
    if end < 0:
        return False
    head = answer[:end].lower()
    start = head.find(LENGTH)
    if start < 0:
        raise LoadFailed("an answer has no Content-Length")
    length = int(head[start + len(LENGTH) :].partition(b"\r\n")[0])
    return len(answer) >= end + len(HEAD_END) + length


def run(load: Load) -> Measurement:
    """Send until the time is over, then wait for what is under way; that counts too. Raises LoadFailed."""
    with contextlib.ExitStack() as stack:
        connections = {}
        for number in range(load.connections):
            connection = Connection(load, number)
            stack.enter_context(connection.socket)
            connections[connection.socket.fileno()] = connection
        poll = stack.enter_context(select.epoll())
        for descriptor in connections:
            poll.register(descriptor, select.EPOLLIN)
        return keep_busy(connections, poll, load)


def keep_busy(connections: dict[int, Connection], poll: select.epoll, load: Load) -> Measurement:
    """The loop: whichever connection has its answer sends its next request, until the time is over."""
    requests = load.requests()
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    started = time.perf_counter()
    for connection in connections.values():
        connection.send(requests)
    waiting = len(connections)
    while waiting:
        ready = poll.poll(SILENCE_SECONDS)
        if not ready:
            raise LoadFailed(f"no answer for {SILENCE_SECONDS:g} seconds")
        for descriptor, _ in ready:
            connection = connections[descriptor]
            answer = connection.receive()
            if answer is None:
                continue
            now = time.perf_counter()
            latencies.append(now - connection.sent_at)
            if not answer.startswith(GOOD_STATUS) or GOOD_BODY not in answer:
                errors[answer[9:12].decode("ascii", "replace")] += 1
            if now < started + load.seconds:
                connection.send(requests)
            else:
                waiting -= 1
    return measurement(latencies, time.perf_counter() - started, dict(errors))


def measurement(latencies: list[float], seconds: float, errors: dict[str, int]) -> Measurement:
    """The figures of some latencies in seconds."""
    ordered = sorted(latencies)

    def milliseconds(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1000, 3)

    return Measurement(
        requests=len(ordered),
        seconds=round(seconds, 4),
        p50=milliseconds(0.5),
        p90=milliseconds(0.9),
        p99=milliseconds(0.99),
        longest=milliseconds(1),
        errors=errors,
    )


if __name__ == "__main__":
    print(json.dumps(asdict(run(Load(**json.load(sys.stdin))))))
