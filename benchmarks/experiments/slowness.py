"""Callers who hold connections and hardly send, beside callers who want predictions: what the latter notice."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.bench import Bench
from benchmarks.bodies import digits
from benchmarks.digit_load import PREDICT, digit_requests, predictions
from benchmarks.experiment import Experiment
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.slow_callers import slow_callers
from benchmarks.system import Options
from benchmarks.verification import verify

ALONE, BESIDE = "predictions", "beside slow callers"
CONNECTIONS = 32
CHECKED = 64
# More than the crowd and everybody else.
SETTINGS = {"connections": "8192"}


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    number = bench.sizes.slow
    with bench.serving("slowness", Options(settings=SETTINGS)) as system:
        token = bench.token(system)
        verify(system, DIGITS, digits(CHECKED), token, connections=8)
        load = predictions(bench, system.port, digit_requests(token))(CONNECTIONS)
        body = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Length: 1000000\r\n\r\n"
        beginnings = (b"", b"GET / HTTP/1.1\r\nX: ", body.encode())
        bench.measure(replace(load, seconds=bench.sizes.warm_seconds))
        reopened = 0
        for _ in range(bench.sizes.rounds):
            bench.once(ALONE, load, outcome)
            with slow_callers(system.port, number, beginnings) as crowd:
                bench.once(BESIDE, load, outcome)
            reopened += crowd.reopened
    alone, beside = (outcome.figures(name, CONNECTIONS) for name in (ALONE, BESIDE))
    outcome.facts["slow connections"] = number
    outcome.facts["slow connections that were opened again"] = reopened
    outcome.facts["p99 beside slow callers to p99 alone"] = beside.p99 / alone.p99
    outcome.facts["requests/s beside slow callers to alone"] = beside.per_second / alone.per_second
    return outcome


SLOWNESS = Experiment("slowness", "Predictions beside 1,000 connections that hardly send anything.", run)
