"""What somebody would write instead of a batch: `python -m benchmarks.batch_alone`, one process that does it all.

It reads a file of JSON lines, parses it with `json` or with orjson, predicts a batch at a time with ONNX Runtime on one
thread, and writes a line for each row. It reads a `Script` as JSON from standard input, and writes the most memory that
it took, in megabytes, to standard output.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import orjson

from benchmarks.failures import BenchmarkFailed
from benchmarks.processes import peak_megabytes
from model_store.signature import Signature
from workers.runtimes.onnx import OnnxPredictor

PARSERS: dict[str, Callable[[bytes], object]] = {"json": json.loads, "orjson": orjson.loads}


@dataclass(frozen=True, slots=True)
class Script:
    """A model's file and signature (as JSON), the two files, who parses, and how many rows are predicted at a time."""

    model: str
    signature: str
    rows: str
    answers: str
    parser: str
    batch: int


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds from the start of the process to its end, and the most memory that it took."""

    seconds: float
    megabytes: float


def measure(script: Script, most_seconds: float) -> Took:
    """Run it in a process of its own; raises BenchmarkFailed."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.batch_alone"],
        input=json.dumps(asdict(script)),
        capture_output=True,
        text=True,
        timeout=most_seconds,
        check=False,
    )
    if done.returncode != 0:
        raise BenchmarkFailed(f"the script ended with {done.returncode}: {done.stderr[-1000:]}")
    return Took(time.monotonic() - started, float(done.stdout))


def run_script(script: Script) -> None:
    """Predict every row of the file."""
    parse = PARSERS[script.parser]
    dump = orjson.dumps if script.parser == "orjson" else lambda document: json.dumps(document).encode()
    signature = Signature.from_json(script.signature)
    predictor = OnnxPredictor(Path(script.model), signature, memory_bytes=0)
    [spec], [output] = signature.inputs, signature.outputs
    row = 0
    with Path(script.rows).open("rb") as lines, Path(script.answers).open("wb") as answers:
        while batch := [parse(line) for line in itertools.islice(lines, script.batch)]:
            found = predictor.run({spec.name: np.array(batch, np.float32)})[output.name]
            for prediction in found.tolist():
                answers.write(dump({"row": row, "predictions": [prediction]}) + b"\n")
                row += 1


if __name__ == "__main__":
    run_script(Script(**json.load(sys.stdin)))
    print(peak_megabytes(os.getpid()))
