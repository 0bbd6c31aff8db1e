"""Limits: what keeping to them costs each prediction, and how exactly two gateways keep a rate between them."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx

from benchmarks.bench import Bench
from benchmarks.bodies import digits, json_body
from benchmarks.digit_load import PREDICT, digit_requests, predictions
from benchmarks.experiment import Experiment
from benchmarks.failures import BenchmarkFailed
from benchmarks.load import JSON_TYPE
from benchmarks.meter import Meter
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.system import HOST, System, read_clients
from benchmarks.verification import verify

CHECKED = 64
FREE = "without limits"
LIMITED = "with limits"
# Nobody reaches these: what is measured is that they are kept.
WIDE = {
    "requests_per_second": 1_000_000,
    "instances_per_day": 10**12,
    "bytes_per_day": 10**15,
    "concurrent_requests": 1_000_000,
}
PER_SECOND = 200
# What a rate has unless another burst is named.
BURST = PER_SECOND
TIMES = 3
ASKING_SECONDS = 6.0
LEARNING_SECONDS = 10.0


def run_cost(bench: Bench) -> Outcome:
    outcome = Outcome()
    with bench.serving("limits") as system:
        _limit(bench, system, "caller-0", [WIDE, {"model": DIGITS, **WIDE}])
        tokens = {FREE: bench.token(system), LIMITED: bench.token(system, "caller-0")}
        verify(system, DIGITS, digits(CHECKED), tokens[LIMITED], connections=8)
        _wait_for_limits(system, tokens[LIMITED])
        contenders = {name: predictions(bench, system.port, digit_requests(token)) for name, token in tokens.items()}
        for connections in bench.sizes.pair:
            meters = {name: Meter(system.processes()) for name in contenders}
            bench.compare(contenders, [connections], outcome, meters=meters)
            for name, meter in meters.items():
                seconds = meter.mean_seconds()["gateway"]
                outcome.facts[f"gateway, processor µs a prediction {name} at {connections}"] = seconds * 1e6
    for connections in bench.sizes.pair:
        ratio = outcome.ratio(LIMITED, FREE, connections)
        outcome.facts[f"with limits to without at {connections}"] = ratio
    return outcome


def run_rate(bench: Bench) -> Outcome:
    outcome = Outcome()
    with bench.serving("rate") as system:
        system.start_gateway()
        _limit(bench, system, "caller-0", [{"requests_per_second": PER_SECOND, "burst": BURST}])
        token = bench.token(system, "caller-0")
        _wait_for_limits(system, token)
        # What the first questions took of the burst is there again.
        time.sleep(1.0)
        begun = time.monotonic()
        with ThreadPoolExecutor(len(system.gateways)) as threads:
            counts = list(threads.map(lambda port: _ask(port, token), [port for _, port in system.gateways]))
        seconds = time.monotonic() - begun
    together = sum(counts, Counter[int]())
    if unexpected := set(together) - {200, 429}:
        outcome.problems.append(f"answers of status {sorted(unexpected)}")
    outcome.facts["let in to allowed, two gateways"] = together[200] / (BURST + PER_SECOND * seconds)
    outcome.facts["asked to allowed, two gateways"] = together.total() / (BURST + PER_SECOND * seconds)
    return outcome


def _limit(bench: Bench, system: System, client: str, limits: Sequence[Mapping[str, object]]) -> None:
    client_id = read_clients(bench.installation.clients_file)[client]["client_id"]
    answer = httpx.put(
        f"{system.address}/admin/clients/{client_id}/limits",
        json={"limits": limits},
        headers={"authorization": f"Bearer {bench.token(system, 'administrator')}"},
        trust_env=False,
    )
    if not answer.is_success:
        raise BenchmarkFailed(f"limits were not set: {answer.text}")


def _wait_for_limits(system: System, token: str) -> None:
    """Until every gateway tells the client of its limits; raises BenchmarkFailed."""
    until = time.monotonic() + LEARNING_SECONDS
    for _, port in system.gateways:
        connection = http.client.HTTPConnection(HOST, port, timeout=LEARNING_SECONDS)
        while "ratelimit" not in _predict(connection, token)[1]:
            if time.monotonic() > until:
                raise BenchmarkFailed("a gateway does not know the limits")
            time.sleep(0.05)
        connection.close()


def _ask(port: int, token: str) -> Counter[int]:
    """Statuses of one gateway's share of too many requests, spread evenly over the time."""
    connection = http.client.HTTPConnection(HOST, port, timeout=LEARNING_SECONDS)
    begun, statuses = time.monotonic(), Counter[int]()
    while (passed := time.monotonic() - begun) < ASKING_SECONDS:
        if statuses.total() < passed * PER_SECOND * TIMES / 2:
            statuses[_predict(connection, token)[0]] += 1
        else:
            time.sleep(0.001)
    connection.close()
    return statuses


def _predict(connection: http.client.HTTPConnection, token: str) -> tuple[int, set[str]]:
    """Status of an answer and the names of its fields."""
    headers = {"Authorization": f"Bearer {token}", **JSON_TYPE}
    connection.request("POST", PREDICT, json_body(digits(1)), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status, {name.lower() for name, _ in answer.getheaders()}


LIMITS = Experiment("limits", "A client with every kind of limit in turn with one without.", run_cost)
RATE = Experiment("rate", f"A client at {TIMES} times its rate, over two gateways.", run_rate)
