"""One job of a client while thousands of another wait: how long until it has succeeded, as its caller sees it."""

from __future__ import annotations

import http.client
import json
import time
from dataclasses import replace
from statistics import median

from benchmarks.bench import Bench, run_apart
from benchmarks.bodies import digits, json_body
from benchmarks.digit_load import ACCEPTED, PREDICT, SUBMIT, submissions
from benchmarks.experiment import Experiment
from benchmarks.failures import BenchmarkFailed
from benchmarks.jobs import SUCCEEDED, UNFINISHED, by_state, wait_until_ended
from benchmarks.outcome import Outcome
from benchmarks.system import HOST, Options, System

CONNECTIONS = 32
SUBMIT_SECONDS = 120.0
DRAIN_SECONDS = 120.0
SETTINGS = {"queued_jobs_limit": "1000000"}


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    with bench.serving("fairness", Options(settings=SETTINGS)) as system:
        single = SingleCaller(system, bench.token(system))
        jobs = bench.sizes.single_jobs
        single.jobs(2)  # the first ones load the model
        idle, idle_predictions = single.jobs(jobs), single.predictions(jobs)
        system.stop_worker()
        _submit(bench, system)
        system.start_worker()
        busy, busy_predictions = single.jobs(jobs), single.predictions(jobs)
        left = sum(by_state(system).get(state, 0) for state in UNFINISHED)
        ended = wait_until_ended(system, DRAIN_SECONDS)
    if not left:
        outcome.problems.append("the others' jobs were done before the last single one")
    if set(ended) != {SUCCEEDED}:
        outcome.problems.append(f"jobs ended as {ended}")
    outcome.facts["p50 of a job on an idle system, ms"] = median(idle)
    outcome.facts["p50 of a job while others' wait, ms"] = median(busy)
    outcome.facts["longest of a job while others' wait, ms"] = max(busy)
    outcome.facts["jobs that still waited at the end"] = left
    outcome.facts["p50 of a job, busy to idle"] = median(busy) / median(idle)
    outcome.facts["p50 of a prediction on an idle system, ms"] = median(idle_predictions)
    outcome.facts["p50 of a prediction while others' jobs wait, ms"] = median(busy_predictions)
    outcome.facts["p50 of a prediction, busy to idle"] = median(busy_predictions) / median(idle_predictions)
    return outcome


class SingleCaller:
    """A client that asks for one thing, waits for it, and then asks for the next; times are in milliseconds."""

    def __init__(self, system: System, token: str) -> None:
        self._connection = http.client.HTTPConnection(HOST, system.port, timeout=90)
        self._headers = {"Authorization": f"Bearer {token}"}
        self._body = json_body(digits(1))

    def jobs(self, count: int) -> list[float]:
        """From each submit to the answer of `?wait=` that says `succeeded`; raises BenchmarkFailed."""
        return [self._job() for _ in range(count)]

    def predictions(self, count: int) -> list[float]:
        """From each synchronous request to its answer; raises BenchmarkFailed."""
        return [self._prediction() for _ in range(count)]

    def _prediction(self) -> float:
        started = time.perf_counter()
        self._call("POST", PREDICT, 200, self._body)
        return (time.perf_counter() - started) * 1000

    def _job(self) -> float:
        started = time.perf_counter()
        job = self._call("POST", SUBMIT, ACCEPTED, self._body)
        found = self._call("GET", f"/v1/jobs/{job['id']}?wait=60", 200)
        if found["state"] != SUCCEEDED:
            raise BenchmarkFailed(f"a job is {found['state']} after a minute")
        return (time.perf_counter() - started) * 1000

    def _call(self, method: str, path: str, status: int, body: bytes | None = None) -> dict[str, object]:
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status != status:
            raise BenchmarkFailed(f"{method} {path} answered {answer.status} {said[:200]!r}")
        return dict(json.loads(said))


def _submit(bench: Bench, system: System) -> None:
    load = submissions(bench, system.port, bench.token(system, "caller-0"))(CONNECTIONS)
    done = run_apart(replace(load, seconds=SUBMIT_SECONDS, count=bench.sizes.waiting))
    if done.errors:
        raise BenchmarkFailed(f"jobs were refused: {done.errors}")


FAIRNESS = Experiment("fairness", "One client's single jobs while another's 20,000 wait.", run)
