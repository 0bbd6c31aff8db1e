"""The load generator counts what it should, and the report says what was measured."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from benchmarks.load import Load, LoadFailed, Measurement, measurement, run
from benchmarks.report import FLOOR, SLUICE, Report, Round

PREDICTION = b'{"predictions":[[0.5]]}'


def answer(status: bytes, body: bytes) -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


class Server:
    """Answers each request in two pieces; every third one with 503, and none any more once `closing` is set."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.listener.getsockname()[1])
        self.bodies: set[bytes] = set()
        self.closing = False

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def talk(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            for number in count(1):
                head = b"".join(iter(lines.readline, b"\r\n"))
                if not head or self.closing:
                    return
                length = int(head.lower().partition(b"content-length: ")[2].split()[0])
                self.bodies.add(lines.read(length))
                sent = answer(b"503 Unavailable", b'{"error":""}') if number % 3 == 0 else answer(b"200 OK", PREDICTION)
                connection.sendall(sent[:25])
                connection.sendall(sent[25:])


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve, daemon=True)
    thread.start()
    yield made
    made.listener.shutdown(socket.SHUT_RDWR)
    made.listener.close()
    thread.join(5)


def load_on(server: Server) -> Load:
    return Load("127.0.0.1", server.port, "/predict", "t", ["first", "second"], connections=3, seconds=0.1)


def test_every_answer_is_counted_and_those_that_are_no_predictions_by_their_status(server: Server):
    found = run(load_on(server))
    assert found.requests >= 9
    assert list(found.errors) == ["503"]
    assert abs(found.errors["503"] - found.requests / 3) <= 3
    assert 0 < found.p50 <= found.p90 <= found.p99 <= found.longest
    assert server.bodies == {b"first", b"second"}


def test_a_closed_connection_is_a_failure_and_no_figure(server: Server):
    server.closing = True
    with pytest.raises(LoadFailed, match="closed"):
        run(load_on(server))


def test_percentiles_are_those_of_the_ordered_latencies():
    found = measurement([number / 1000 for number in range(100, 0, -1)], 2.0, {})
    assert (found.p50, found.p90, found.p99, found.longest) == (50, 90, 99, 100)
    assert found.per_second == 50


def test_the_report_sets_medians_of_the_rounds_beside_the_floor(tmp_path: Path):
    def rounds(name: str, *per_second: int) -> list[Round]:
        return [Round(name, 8, Measurement(number, 1.0, 1.0, 2.0, 3.0, 4.0)) for number in per_second]

    report = Report([*rounds(FLOOR, 900, 1000, 5000), *rounds(SLUICE, 500, 100, 900)], "test", datetime.now(UTC))
    table = report.write(tmp_path).read_text()
    assert "| 8 | 1,000 | 500 | **0.50** |" in table
    assert len(list(tmp_path.iterdir())) == 2
    assert report.errors == 0
