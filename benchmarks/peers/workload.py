"""What all servers are asked: a model, images, and the right answers to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.bodies import Images, digits, photographs, rounded

DIGITS, PHOTOGRAPHS = "digits", "photographs"
# Different requests of a load.
COUNTS = {DIGITS: 64, PHOTOGRAPHS: 8}


@dataclass(frozen=True, slots=True)
class Workload:
    """Images of shape (count, ...), the model that is asked about them, and ONNX Runtime's own answers.

    `model` is the path of the model's files without their suffixes, `.keras` and `.onnx`. `threads` is what a server
    gives to ONNX Runtime: digits take microseconds, and a second thread would only wait for them.
    """

    name: str
    model: Path
    images: Images
    expected: Images
    connections: tuple[int, ...]
    threads: int


def workload(name: str, models: Path, connections: tuple[int, ...]) -> Workload:
    """The workload of this name on the models in a folder."""
    made = digits if name == DIGITS else photographs
    images = rounded(made(COUNTS[name]))
    model = models / name
    threads = 1 if name == DIGITS else 2
    return Workload(name, model, images, predictions(model.with_suffix(".onnx"), images), connections, threads)


def predictions(model: Path, images: Images) -> Images:
    """What ONNX Runtime answers to images, a row each."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(answers, np.float32)
