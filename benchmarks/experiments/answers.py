"""Right answers under load, which every figure presumes."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.bodies import digits
from benchmarks.experiment import Experiment
from benchmarks.models import DIGITS
from benchmarks.outcome import Outcome
from benchmarks.verification import verify

CONNECTIONS = 32


def run(bench: Bench) -> Outcome:
    outcome = Outcome()
    images = digits(bench.sizes.inputs, seed=11)
    with bench.serving("answers") as system:
        token = bench.token(system)
        for name, binary in (("JSON", False), ("binary tensors", True)):
            right = verify(system, DIGITS, images, token, connections=CONNECTIONS, binary=binary)
            outcome.facts[f"right answers to different digits as {name}"] = right
    return outcome


ANSWERS = Experiment(
    "answers", "Different digits over 32 connections, each answer compared with ONNX Runtime's own.", run
)
