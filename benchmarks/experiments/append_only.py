"""Redis with its append-only file beside Redis as `sluice up` starts it."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.bodies import digits
from benchmarks.digit_load import digit_requests, predictions
from benchmarks.experiment import Experiment
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.system import Options
from benchmarks.verification import verify

MEMORY = "memory only"
# Enough for what no target depends on.
ROUNDS = 2
FILE = "append-only file, everysec"


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    with (
        bench.serving("memory-only") as plain,
        bench.serving("append-only", Options(append_only=True)) as appending,
    ):
        contenders = {}
        for name, system in ((MEMORY, plain), (FILE, appending)):
            token = bench.token(system)
            verify(system, DIGITS, digits(64), token, connections=8)
            contenders[name] = predictions(bench, system.port, digit_requests(token))
        bench.compare(contenders, bench.sizes.pair, outcome, most_rounds=ROUNDS)
    for connections in bench.sizes.pair:
        outcome.facts[f"append-only to memory only at {connections}"] = outcome.ratio(FILE, MEMORY, connections)
    return outcome


APPEND_ONLY = Experiment("append-only", "Redis with `appendonly yes, appendfsync everysec`.", run)
