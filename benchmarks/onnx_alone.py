"""ONNX Runtime alone: `python -m benchmarks.onnx_alone` runs one model in a loop and nothing else.

It reads a `Run` as JSON from standard input and writes instances per second to standard output. The session is made
with the worker's own options, on the worker's one thread.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.failures import BenchmarkFailed
from model_store.signature import Signature
from workers.runtimes.onnx import OnnxPredictor

WARM_RUNS = 3
MOST_SECONDS_OVER = 60.0


@dataclass(frozen=True, slots=True)
class Run:
    """A model's file and signature (as JSON), the mean size of its batches, and for how long."""

    path: str
    signature: str
    batch: float
    seconds: float


def measure(run: Run) -> float:
    """Instances per second, in a process of its own; raises BenchmarkFailed."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.onnx_alone"],
        input=json.dumps(asdict(run)),
        capture_output=True,
        text=True,
        timeout=run.seconds + MOST_SECONDS_OVER,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkFailed(f"ONNX Runtime alone ended with {done.returncode}: {done.stderr[-1000:]}")
    return float(done.stdout)


def sizes(mean: float) -> Iterator[int]:
    """Whole numbers of at least 1 whose mean approaches this one: 3.5 gives 3, 4, 3, 4 and so on."""
    mean, due = max(mean, 1.0), 0.0
    while True:
        due += mean
        size = int(due)
        due -= size
        yield size


def run_alone(run: Run) -> float:
    """Instances per second in this process, after a few runs that nobody counts."""
    signature = Signature.from_json(run.signature)
    predictor = OnnxPredictor(Path(run.path), signature, memory_bytes=0)
    [spec] = signature.inputs
    free = [1 if size is None else size for size in spec.shape[1:]]
    largest = np.random.default_rng(7).random((int(run.batch) + 1, *free), dtype=np.float32)
    batches = sizes(run.batch)
    for _ in range(WARM_RUNS):
        predictor.run({spec.name: largest})
    instances, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < run.seconds:
        size = next(batches)
        predictor.run({spec.name: largest[:size]})
        instances += size
    return instances / taken


if __name__ == "__main__":
    print(run_alone(Run(**json.load(sys.stdin))))
