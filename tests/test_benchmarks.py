"""The load generator counts what it should."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, islice, takewhile

import numpy as np
import pytest

from benchmarks import wrk
from benchmarks.bench import together
from benchmarks.bodies import HEADER_LENGTH, binary_answer, binary_request, digits, json_answer, json_request, rounded
from benchmarks.load import Load, LoadFailed, measurement, post, run
from benchmarks.onnx_alone import sizes
from model_store.signature import Signature, TensorSpec
from workers.protocols.tensorflow_serving import parse_predict

PREDICTION = b'{"predictions":[[0.5]]}'
SIGNATURE = Signature((TensorSpec("image", "float32", (None, 28, 28)),), (TensorSpec("y", "float32", (None, 10)),))


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
        # Some callers hang up when their time is over.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rb") as lines:
            for number in count(1):
                head = b"".join(takewhile(b"\r\n".__ne__, lines))
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
    requests = [post("/predict", body, token="t") for body in (b"first", b"\x00\n\xff")]
    return Load("127.0.0.1", server.port, requests, connections=3, seconds=0.1, contains=b'"predictions"')


def test_every_answer_is_counted_and_those_that_are_no_predictions_by_their_status(server: Server):
    found = run(load_on(server))
    assert found.requests >= 9
    assert list(found.errors) == ["503"]
    assert abs(found.errors["503"] - found.requests / 3) <= 3
    assert 0 < found.p50 <= found.p90 <= found.p99 <= found.longest
    assert server.bodies == {b"first", b"\x00\n\xff"}


def test_a_load_with_a_count_sends_exactly_so_many_requests(server: Server):
    assert run(replace(load_on(server), seconds=60, count=10)).requests == 10
    assert run(replace(load_on(server), seconds=60, count=2)).requests == 2


def test_an_answer_without_what_it_should_contain_is_an_error(server: Server):
    found = run(replace(load_on(server), count=3, contains=b"nothing like it"))
    assert found.errors == {"200": 3}


def test_a_closed_connection_is_a_failure_and_no_figure(server: Server):
    server.closing = True
    with pytest.raises(LoadFailed, match="closed"):
        run(load_on(server))


def test_a_load_survives_the_way_to_the_process_that_makes_it(server: Server):
    load = load_on(server)
    assert Load.from_json(load.to_json()) == load


@pytest.mark.debian
def test_wrk_sends_the_same_bytes(server: Server):
    found = wrk.run(load_on(server))
    assert found.requests >= 9
    assert found.errors["status"] >= 1
    assert server.bodies == {b"first", b"\x00\n\xff"}


def test_percentiles_are_those_of_the_ordered_latencies():
    found = measurement([number / 1000 for number in range(100, 0, -1)], 2.0, {})
    assert (found.p50, found.p90, found.p99, found.longest) == (50, 90, 99, 100)
    assert found.per_second == 50


def test_loads_that_ran_together_count_as_one_with_the_worst_percentiles():
    fast, slow = measurement([0.001] * 10, 1.0, {}), measurement([0.002] * 4, 1.0, {"503": 1})
    found = together([fast, slow])
    assert (found.requests, found.per_second, found.p50, found.errors) == (14, 14, 2, {"503": 1})


def test_both_forms_of_a_request_hold_the_same_numbers():
    images = digits(3)
    body = json_request("mnist", images, "t").partition(b"\r\n\r\n")[2]
    from_json = parse_predict(body, SIGNATURE, max_instances=3).tensors["image"]
    head, _, binary = binary_request("mnist", SIGNATURE.inputs[0], images, "t").partition(b"\r\n\r\n")
    length = int(head.decode().partition(f"{HEADER_LENGTH}: ")[2].split()[0])
    assert np.array_equal(from_json, rounded(images))
    assert np.array_equal(np.frombuffer(binary[length:], "<f4").reshape(3, 28, 28), from_json)


def test_answers_of_both_forms_are_read():
    header = b'{"outputs":[{"name":"y","shape":[1,2],"parameters":{"binary_data_size":8}}]}'
    body = header + np.array([0.25, 0.75], "<f4").tobytes()
    assert binary_answer({"inference-header-content-length": str(len(header))}, body).tolist() == [[0.25, 0.75]]
    assert json_answer(b'{"predictions": [[0.25, 0.75]]}').tolist() == [[0.25, 0.75]]


@pytest.mark.parametrize("mean", [1.0, 1.5, 3.25, 7.9])
def test_batches_of_whole_numbers_approach_their_mean(mean: float):
    found = list(islice(sizes(mean), 400))
    assert abs(sum(found) / len(found) - mean) < 0.01
    assert max(found) - min(found) <= 1
