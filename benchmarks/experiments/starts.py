"""From the start of a process until it is of use."""

from __future__ import annotations

import http.client
import threading
import time
from statistics import median

from benchmarks.bench import Bench
from benchmarks.bodies import digits, json_body
from benchmarks.experiment import Experiment
from benchmarks.failures import BenchmarkFailed
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.system import HOST, System

PATIENCE_SECONDS = 35.0


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    gateways, announced, answered = [], [], []
    with bench.system("starts") as system:
        for _ in range(bench.sizes.starts):
            gateways.append(system.start_gateway())
            token = bench.token(system)
            slots, answer = _start_worker(system, token)
            announced.append(slots)
            answered.append(answer)
            system.stop_worker()
            system.stop_gateway()
    outcome.facts["gateway, start to ready, s"] = median(gateways)
    outcome.facts["worker, start to slots announced, s"] = median(announced)
    outcome.facts["worker, start to first answer, s"] = median(answered)
    return outcome


def _start_worker(system: System, token: str) -> tuple[float, float]:
    """Seconds until its slots are announced, and until a prediction that waited from before is answered."""
    answered: list[float] = []
    waiting = threading.Thread(target=_predict, args=(system.port, token, answered), daemon=True)
    started = time.monotonic()
    waiting.start()
    system.start_worker()
    announced = time.monotonic() - started
    waiting.join(PATIENCE_SECONDS)
    if not answered:
        raise BenchmarkFailed("no prediction was answered after the start of a worker")
    return announced, answered[0] - started


def _predict(port: int, token: str, answered: list[float]) -> None:
    connection = http.client.HTTPConnection(HOST, port, timeout=PATIENCE_SECONDS)
    connection.request(
        "POST", f"/v1/models/{DIGITS}:predict", json_body(digits(1)), {"Authorization": f"Bearer {token}"}
    )
    if connection.getresponse().status == 200:
        answered.append(time.monotonic())
    connection.close()


STARTS = Experiment("starts", "Gateway and worker, from the start of the process until they are of use.", run)
