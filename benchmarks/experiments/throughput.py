"""Requests per second and latency over the number of connections, beside the floor; batch sizes and memory with it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.bench import Bench
from benchmarks.bodies import digits
from benchmarks.digit_load import digit_requests, predictions
from benchmarks.experiment import Experiment
from benchmarks.meter import Meter
from benchmarks.metrics import Batches, batches
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.processes import proportional_megabytes, resident_megabytes
from benchmarks.system import System
from benchmarks.verification import verify

FLOOR = "floor"
SLUICE = "Sluice"
CHECKED = 64


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    with bench.serving("throughput") as system:
        floor_port = system.start_floor()
        requests = digit_requests(bench.token(system))
        verify(system, DIGITS, digits(CHECKED), bench.token(system), connections=8)
        _note_memory(system, outcome, "at first")
        sluice, floor = predictions(bench, system.port, requests), predictions(bench, floor_port, requests)
        administrator = bench.token(system, "administrator")
        before = _batches(system, administrator)
        for connections in bench.sizes.connections:
            meter = Meter(system.processes())
            bench.compare({FLOOR: floor, SLUICE: sluice}, [connections], outcome, meters={SLUICE: meter})
            for part, seconds in meter.mean_seconds().items():
                outcome.facts[f"{part}, processor µs a prediction at {connections}"] = seconds * 1e6
            after = _batches(system, administrator)
            outcome.facts[f"instances in a batch at {connections}"] = after.mean_since(before)
            before = after
        _note_memory(system, outcome, "afterwards")
        outcome.facts["predictions in between"] = before.instances
    _note_ratios(outcome, bench.sizes.connections)
    return outcome


def _batches(system: System, token: str) -> Batches:
    return batches(system.address, token, DIGITS)


def _note_ratios(outcome: Outcome, connections: Sequence[int]) -> None:
    for number in connections:
        sluice, floor = outcome.figures(SLUICE, number), outcome.figures(FLOOR, number)
        outcome.facts[f"requests/s to floor at {number}"] = outcome.ratio(SLUICE, FLOOR, number)
        outcome.facts[f"p50 to floor at {number}"] = sluice.p50 / floor.p50
        outcome.facts[f"p99 to p50 at {number}"] = sluice.p99 / sluice.p50


def _note_memory(system: System, outcome: Outcome, when: str) -> None:
    """Resident megabytes; with mnist loaded, since a prediction was made."""
    worker = system.worker
    if worker is None:
        return
    gateway, predicting = system.gateways[0][0].pid, system.predicting()
    outcome.facts[f"gateway, MB {when}"] = resident_megabytes(gateway)
    outcome.facts[f"prediction process, MB {when}"] = resident_megabytes(predicting)
    outcome.facts[f"its parent, MB {when}"] = resident_megabytes(worker.pid)
    outcome.facts[f"both of the worker, shared pages once, MB {when}"] = sum(
        map(proportional_megabytes, (predicting, worker.pid))
    )


THROUGHPUT = Experiment("throughput", "One digit a request as JSON, Sluice and the floor in turns.", run)
