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
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

# No server here takes longer for a prediction before it answers with an error.
SILENCE_SECONDS = 35.0
HEAD_END = b"\r\n\r\n"
LENGTH = b"content-length:"
JSON_TYPE: Mapping[str, str] = {"Content-Type": "application/json"}
# Bytes of requests travel to the process that sends them inside of JSON; every byte is one character of this.
WIRE = "latin-1"


@dataclass(frozen=True, slots=True)
class Load:
    """Whole requests as on the wire, which the connections take in turn, and what a good answer has.

    It ends after `seconds`, or after `count` requests where that is given. `contains` is looked for in the answer.
    """

    host: str
    port: int
    requests: Sequence[bytes]
    connections: int
    seconds: float
    status: int = 200
    contains: bytes = b""
    count: int | None = None

    def to_json(self) -> str:
        document = asdict(self) | {
            "requests": [request.decode(WIRE) for request in self.requests],
            "contains": self.contains.decode(WIRE),
        }
        return json.dumps(document)

    @classmethod
    def from_json(cls, text: str) -> Load:
        document = json.loads(text)
        requests = [request.encode(WIRE) for request in document.pop("requests")]
        return cls(**document | {"requests": requests, "contains": document["contains"].encode(WIRE)})


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came back: latencies in milliseconds; `errors` counts answers that were not good, by their status."""

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


def post(path: str, body: bytes, *, token: str | None = None, headers: Mapping[str, str] = JSON_TYPE) -> bytes:
    """A POST as on the wire."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [] if token is None else [f"Authorization: Bearer {token}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n").encode() + body


class Connection:
    """One keep-alive connection with at most one request under way."""

    __slots__ = ("received", "sent_at", "socket")

    def __init__(self, load: Load) -> None:
        self.socket = socket.create_connection((load.host, load.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""
        self.sent_at = 0.0

    def send(self, request: bytes) -> None:
        self.sent_at = time.perf_counter()
        self.socket.sendall(request)

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
    """Send until the end, then wait for what is under way; that counts too. Raises LoadFailed."""
    with contextlib.ExitStack() as stack:
        connections = {}
        for _ in range(load.connections if load.count is None else min(load.connections, load.count)):
            connection = Connection(load)
            stack.enter_context(connection.socket)
            connections[connection.socket.fileno()] = connection
        poll = stack.enter_context(select.epoll())
        for descriptor in connections:
            poll.register(descriptor, select.EPOLLIN)
        return keep_busy(connections, poll, load)


def keep_busy(connections: dict[int, Connection], poll: select.epoll, load: Load) -> Measurement:
    """The loop: whichever connection has its answer sends the next request, until the end."""
    requests, good = load.requests, b"HTTP/1.1 %d " % load.status
    latencies: list[float] = []
    errors: Counter[str] = Counter()
    started = time.perf_counter()
    for number, connection in enumerate(connections.values()):
        connection.send(requests[number % len(requests)])
    sent = waiting = len(connections)
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
            if not answer.startswith(good) or load.contains not in answer:
                errors[answer[9:12].decode("ascii", "replace")] += 1
            if now < started + load.seconds and (load.count is None or sent < load.count):
                connection.send(requests[sent % len(requests)])
                sent += 1
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
    print(json.dumps(asdict(run(Load.from_json(sys.stdin.read())))))
