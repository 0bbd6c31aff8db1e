"""Checking that a server answers rightly, and then timing it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import httpx
import numpy as np

from benchmarks import wrk
from benchmarks.bodies import Images
from benchmarks.failures import BenchmarkFailed
from benchmarks.load import Load, LoadFailed, Measurement, post
from benchmarks.peers.forms import BINARY, Form
from benchmarks.peers.peer import HOST, Server, Target
from benchmarks.peers.workload import DIGITS, Workload
from sluice.failures import CommandFailed

TOLERANCE = 1e-4
# At once, so that batches are taken apart rightly too.
CALLERS = 8
WARM_SECONDS = 1.0
SETTLE_SECONDS = 60.0
# A server that answers fewer than so many requests a connection is measured for longer.
FEW, SLOW_SECONDS = 4, 15.0
# Below, parsing is a small part of what a request takes, and the forms hardly differ.
LEAST_FOR_BINARY = 32


@dataclass(frozen=True, slots=True)
class Result:
    """One form of one server: what was measured at each number of connections, and why there is no more of it."""

    server: str
    version: str
    workload: str
    form: str
    kind: str
    measured: dict[int, Measurement] = field(default_factory=dict)
    failed: str | None = None


def measure(server: Server, workload: Workload, seconds: float, say: Callable[[str], None]) -> list[Result]:
    """Install, start, check and time a server in each of its forms; what fails is there too, with its reason."""
    forms = server.forms(workload.name)
    results: list[Result] = []
    reason = "not started"
    try:
        server.install()
        with server.serving(workload) as target:
            for form in forms:
                results.append(measure_form(target, form, blank(server, workload, form), workload, seconds))
                say_result(results[-1], say)
    except (BenchmarkFailed, CommandFailed) as error:
        reason = str(error)
    missing = [replace(blank(server, workload, form), failed=reason) for form in forms[len(results) :]]
    for one in missing:
        say_result(one, say)
    return results + missing


def blank(server: Server, workload: Workload, form: Form) -> Result:
    return Result(server.name, server.version, workload.name, form.name, form.kind)


def measure_form(target: Target, form: Form, result: Result, workload: Workload, seconds: float) -> Result:
    """The result with what could be measured."""
    measured: dict[int, Measurement] = {}
    try:
        verify(target, form, workload)
        for connections in workload.connections:
            if form.kind == BINARY and workload.name == DIGITS and connections < LEAST_FOR_BINARY:
                continue
            settle(target, form, workload)
            put_load(target, form, workload, connections, WARM_SECONDS)
            settle(target, form, workload)
            measured[connections] = timed(target, form, workload, connections, seconds)
    except (BenchmarkFailed, LoadFailed, subprocess.TimeoutExpired) as error:
        return replace(result, measured=measured, failed=str(error))
    return replace(result, measured=measured)


def verify(target: Target, form: Form, workload: Workload) -> None:
    """Compare the answers to all images, asked several at a time, with ONNX Runtime's own; raises BenchmarkFailed."""
    with client(target) as http, ThreadPoolExecutor(CALLERS) as callers:
        answers = list(callers.map(lambda number: ask(http, form, workload, number), range(len(workload.images))))
    for number, (answer, expected) in enumerate(zip(answers, workload.expected, strict=True)):
        found = answer.ravel()
        if found.shape != expected.shape or not np.allclose(found, expected, rtol=0, atol=TOLERANCE):
            raise BenchmarkFailed(f"wrong answer to image {number}: {found[:10]}, which is {expected[:10]}")


def ask(http: httpx.Client, form: Form, workload: Workload, number: int) -> Images:
    """One prediction; raises BenchmarkFailed where the answer is something else."""
    request = form.write(workload.images[number : number + 1])
    try:
        answer = http.post(form.path, content=request.body, headers=dict(request.headers))
        if not answer.is_success:
            raise BenchmarkFailed(f"{form.name}: {answer.status_code} {answer.text[:300]}")
        return form.read(answer.headers, answer.content)
    except httpx.TransportError as error:
        raise BenchmarkFailed(f"{form.name}: no answer: {error!r}") from error
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise BenchmarkFailed(f"{form.name}: no prediction: {answer.text[:300]}") from error


def settle(target: Target, form: Form, workload: Workload) -> None:
    """Wait for what an ended load has left under way: a server that is behind answers this request last."""
    with client(target) as http:
        ask(http, form, workload, 0)


def timed(target: Target, form: Form, workload: Workload, connections: int, seconds: float) -> Measurement:
    """As `put_load`, for longer where the server is too slow to be judged by so short a time; raises LoadFailed."""
    found = put_load(target, form, workload, connections, seconds)
    if found.requests < FEW * connections and seconds < SLOW_SECONDS:
        settle(target, form, workload)
        found = put_load(target, form, workload, connections, SLOW_SECONDS)
    if not found.requests:
        raise LoadFailed(f"no answer at {connections} connections")
    return found


def put_load(target: Target, form: Form, workload: Workload, connections: int, seconds: float) -> Measurement:
    """Keep the connections busy with all images in turn; raises LoadFailed."""
    token = target.token()
    written = [form.write(workload.images[number : number + 1]) for number in range(len(workload.images))]
    requests = [post(form.path, one.body, token=token, headers=one.headers) for one in written]
    return wrk.run(Load(HOST, target.port, requests, connections, seconds))


def good_per_second(found: Measurement) -> float:
    """Predictions a second: an answer that is none does not count."""
    return max(0.0, (found.requests - found.errors.get("status", 0)) / found.seconds)


def client(target: Target) -> httpx.Client:
    """Shows the token of this moment with each request."""
    address = f"http://{HOST}:{target.port}"
    return httpx.Client(base_url=address, headers=target.headers(), timeout=SETTLE_SECONDS, trust_env=False)


def say_result(result: Result, say: Callable[[str], None]) -> None:
    for connections, found in result.measured.items():
        errors = f"  errors {found.errors}" if found.errors else ""
        say(
            f"{result.server:<28} {result.form:<10} {connections:>4} connections {good_per_second(found):>9,.0f}/s"
            f"  p50 {found.p50:>8.2f} ms  p99 {found.p99:>8.2f} ms{errors}"
        )
    if result.failed is not None:
        say(f"{result.server:<28} {result.form:<10} failed: {result.failed}")
