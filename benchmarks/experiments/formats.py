"""Other bodies than one digit as JSON: binary tensors, and many instances in one request."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.bodies import GOOD_PREDICTION, GOOD_TENSORS, binary_request, digits, json_request, photographs
from benchmarks.digit_load import DIFFERENT, digit_requests, predictions
from benchmarks.experiment import Experiment
from benchmarks.load import Load
from benchmarks.models import COLOURS, DIGITS
from benchmarks.outcome import Outcome
from benchmarks.system import HOST
from benchmarks.verification import served, verify

JSON = "JSON"
BINARY = "binary tensors"
TOGETHER = 16
SINGLE = "one digit a request"
SIXTEEN = f"{TOGETHER} digits a request"
CHECKED = 64
PHOTOGRAPHS = 8
PHOTOGRAPH_CONNECTIONS = 8


def run_binary(bench: Bench) -> Outcome:
    outcome = Outcome()
    images = digits(DIFFERENT)
    with bench.serving("binary") as system:
        token = bench.token(system)
        for binary in (False, True):
            verify(system, DIGITS, digits(CHECKED), token, connections=8, binary=binary)
        [spec] = served(system, DIGITS).signature.inputs
        requests = [binary_request(DIGITS, spec, images[n : n + 1], token) for n in range(DIFFERENT)]

        def binaries(connections: int) -> Load:
            return Load(HOST, system.port, requests, connections, bench.sizes.seconds, contains=GOOD_TENSORS)

        json_load = predictions(bench, system.port, digit_requests(token))
        bench.compare({JSON: json_load, BINARY: binaries}, bench.sizes.pair, outcome)
    for connections in bench.sizes.pair:
        outcome.facts[f"binary to JSON at {connections}"] = outcome.ratio(BINARY, JSON, connections)
    return outcome


def run_photographs(bench: Bench) -> Outcome:
    """Photographs of 600 KB as float32 and 1 MB as JSON, to a model that hardly looks at them."""
    outcome = Outcome()
    images = photographs(PHOTOGRAPHS)
    with bench.serving("photographs") as system:
        token = bench.token(system)
        for binary in (False, True):
            verify(system, COLOURS, images, token, connections=2, binary=binary)
        [spec] = served(system, COLOURS).signature.inputs
        single = [images[number : number + 1] for number in range(PHOTOGRAPHS)]

        def load(requests: list[bytes], contains: bytes) -> Callable[[int], Load]:
            return lambda connections: Load(
                HOST, system.port, requests, connections, bench.sizes.seconds, contains=contains
            )

        texts = load([json_request(COLOURS, one, token) for one in single], GOOD_PREDICTION)
        binaries = load([binary_request(COLOURS, spec, one, token) for one in single], GOOD_TENSORS)
        bench.compare({JSON: texts, BINARY: binaries}, [PHOTOGRAPH_CONNECTIONS], outcome)
    outcome.facts["binary to JSON, photographs"] = outcome.ratio(BINARY, JSON, PHOTOGRAPH_CONNECTIONS)
    return outcome


def run_instances(bench: Bench) -> Outcome:
    outcome = Outcome()
    connections = bench.sizes.pair[0]
    images = digits(DIFFERENT * TOGETHER)
    with bench.serving("instances") as system:
        token = bench.token(system)
        verify(system, DIGITS, digits(CHECKED), token, connections=8)
        requests = [
            json_request(DIGITS, images[start : start + TOGETHER], token) for start in range(0, len(images), TOGETHER)
        ]
        single = predictions(bench, system.port, digit_requests(token))
        sixteen = predictions(bench, system.port, requests)
        bench.compare({SINGLE: single, SIXTEEN: sixteen}, [connections], outcome)
    instances = TOGETHER * outcome.figures(SIXTEEN, connections).per_second
    outcome.facts["instances/s, 16 a request"] = instances
    outcome.facts["instances/s, 16 to 1"] = instances / outcome.figures(SINGLE, connections).per_second
    return outcome


FORMAT = Experiment("binary", "Binary tensors of the Open Inference Protocol instead of JSON.", run_binary)
PHOTOGRAPH = Experiment(
    "photographs", "Binary tensors instead of JSON for photographs of 224 x 224 pixels.", run_photographs
)
INSTANCES = Experiment("instances", "16 digits in each request instead of one.", run_instances)
