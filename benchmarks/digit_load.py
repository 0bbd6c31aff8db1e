"""The load of most experiments: one digit in each request, as JSON in TensorFlow Serving's form."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.bench import Bench
from benchmarks.bodies import GOOD_PREDICTION, digits, json_body, json_request
from benchmarks.load import Load, post
from benchmarks.models import DIGITS
from benchmarks.system import HOST

DIFFERENT = 64
ACCEPTED = 202
PREDICT = f"/v1/models/{DIGITS}:predict"
SUBMIT = f"/v1/models/{DIGITS}:submit"


def digit_requests(token: str) -> list[bytes]:
    """Requests with different digits, one in each."""
    images = digits(DIFFERENT)
    return [json_request(DIGITS, images[number : number + 1], token) for number in range(DIFFERENT)]


def predictions(bench: Bench, port: int, requests: Sequence[bytes]) -> Callable[[int], Load]:
    """Predict and wait."""

    def load(connections: int) -> Load:
        return Load(HOST, port, requests, connections, bench.sizes.seconds, contains=GOOD_PREDICTION)

    return load


def submissions(bench: Bench, port: int, token: str) -> Callable[[int], Load]:
    """Make a job of each request, and do not wait for it."""
    images = digits(DIFFERENT)
    requests = [post(SUBMIT, json_body(images[n : n + 1]), token=token) for n in range(DIFFERENT)]

    def load(connections: int) -> Load:
        return Load(HOST, port, requests, connections, bench.sizes.seconds, status=ACCEPTED)

    return load
