"""`sluice bench`: what it sends, what it counts, and what it says of itself."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from sluice.bench_commands import document
from sluice.cli import app
from sluice.described_model import read_description
from sluice.load import Findings, Plan, run
from sluice.random_tensors import random_tensors
from tests.command_line import Shell, shell_for
from tests.onnx_models import line
from tests.processes import wait_for
from tests.system import System

METADATA = {
    "model_spec": {"name": "m", "signature_name": "", "version": "1"},
    "metadata": {"signature_def": {"signature_def": {"serving_default": {
        "inputs": {
            "x": {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}},
            "n": {"dtype": "DT_INT32", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "-1"}]}},
            "t": {"dtype": "DT_STRING", "tensor_shape": {"dim": [{"size": "-1"}]}},
        },
        "outputs": {},
    }}}},
}  # fmt: skip


class Limited(BaseHTTPRequestHandler):
    """A server that answers the first two requests, and says to the others that they are too many."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.seen.append(self.rfile.read(int(self.headers["Content-Length"])))
        good = len(self.seen) <= 2
        body = b"{}" if good else b'{"code": "rate_limited", "detail": "too many"}'
        self.send_response(200 if good else 429)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Limited.seen.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Limited) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def plan(address: str, requests: int, connections: int = 1) -> Plan:
    return Plan(address, "/v1/models/m:predict", b"body", {}, connections, None, requests)


def test_every_request_is_counted_once_and_errors_by_their_kind(address: str) -> None:
    told: list[int] = []

    found = run(plan(address, 5), lambda: "token", lambda so_far: told.append(so_far.good))

    assert Limited.seen == [b"body"] * 5
    assert (found.good, found.errors) == (2, {"HTTP 429 rate_limited": 3})
    assert "too many" in found.examples["HTTP 429 rate_limited"]
    assert len(found.latencies) == 2
    assert told[0] == 0


def test_who_does_not_answer_is_an_error_and_no_latency() -> None:
    found = run(plan("http://127.0.0.1:1", 3, connections=3), lambda: "token", lambda _: None)

    assert (found.good, found.errors, found.quantile(0.5)) == (0, {"no connection": 3}, None)


def test_figures_are_those_of_the_latencies_and_say_when_this_process_was_the_limit() -> None:
    found = Findings(good=100, seconds=2.0, cpu_seconds=1.9)
    found.latencies.extend(number / 1000 for number in range(100, 0, -1))

    said = document(plan("http://127.0.0.1:1", 100), found)

    assert said["requests_per_second"] == 50.0
    assert said["latency_ms"] == {"p50": 50.0, "p90": 90.0, "p99": 99.0, "slowest": 100.0}
    assert said["generator"] == {"cpu_share": 0.95, "cpu_ms_per_request": 19.0, "limiting": True}
    found.cpu_seconds = 0.5
    assert not document(plan("http://127.0.0.1:1", 100), found)["generator"]["limiting"]


def test_random_tensors_fit_the_model_and_are_the_same_each_time() -> None:
    tensors = random_tensors(METADATA, 2)

    assert {name: (str(tensor.dtype), tensor.shape) for name, tensor in tensors.items()} == {
        "x": ("float32", (2, 3)), "n": ("int32", (2, 4)), "t": ("object", (2,)),
    }  # fmt: skip
    assert read_description(METADATA).inputs.keys() == tensors.keys()
    assert (random_tensors(METADATA, 2)["x"] == tensors["x"]).all()


@pytest.fixture(scope="module")
def shell(system: System, tmp_path_factory: pytest.TempPathFactory) -> Shell:
    file = line(tmp_path_factory.mktemp("models") / "line.onnx", weights=[1.0, 10.0], bias=100.0)
    shell = shell_for(system, file)
    # A gateway hears of new clients within a second.
    wait_for(
        lambda: CliRunner().invoke(app, ["bench", shell.model, "--requests", "1"], env=shell.who).exit_code == 0, 20
    )
    return shell


@pytest.mark.parametrize(
    "options",
    [("--json-bodies",), ("--binary", "--instances", "16"), ("--version", "1"), ("--submit",), ("--input", "-")],
    ids=["JSON", "binary", "a version", "submits", "standard input"],
)
def test_a_model_is_measured_with_what_fits_it(shell: Shell, options: tuple[str, ...]) -> None:
    sent = ("--requests", "6", "--connections", "2", "--json")

    said = json.loads(shell("bench", shell.model, *sent, *options, text="[[1, 2]]").output)

    assert (said["answered"], said["errors"]) == (6, {})
    assert said["latency_ms"]["p50"] <= said["latency_ms"]["slowest"]


def test_a_bench_that_nothing_came_of_fails_and_says_why(shell: Shell) -> None:
    wrong = shell("bench", shell.model, "--requests", "2", "--input", "-", text='[["a"]]', fails=True)
    assert "error: HTTP 400" in wrong.output

    both = shell("bench", shell.model, "--binary", "--submit", fails=True)
    assert "neither with --input nor with --submit" in str(both.exception)
