"""Commands that run an ONNX graph in a runner with the predictor that serves it: for proofs and measurements."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from model_store.signature import Signature, Tensor, Tensors

HELD, PLAIN = "onnx_predictor", "onnx_plain_session"
REPEAT_SECONDS = 0.04
REPEATS = 50
# A call that takes longer is not made again: nothing hangs on its last digits.
LONG_SECONDS = 1.0
SHORT_SECONDS = 0.001

Run = Callable[[], object]


def start_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Imports ONNX Runtime, so that what the process grows by afterwards is the model's own."""
    from workers.runtimes import onnx  # noqa: F401 - see above

    return {}, {}


def load_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Loads the file `path` of a `signature` in JSON, to run on `threads`. PredictionFailed where that cannot be."""
    from workers.runtimes.onnx import OnnxPredictor

    signature = Signature.from_json(arguments["signature"])
    held[HELD] = OnnxPredictor(Path(arguments["path"]), signature, 0, arguments["threads"])
    return {}, {}


def predict_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Outputs of the loaded graph."""
    return {}, held[HELD].run(tensors)


def time_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Answers `seconds`, the median of several runs, as a serving worker would see them: without a pipe between."""
    return {"seconds": median_seconds(lambda: held[HELD].run(tensors), undisturbed_seconds)}, {}


def load_plain(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Loads the file `path` without any of ONNX Runtime's optimisations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    held[PLAIN] = onnxruntime.InferenceSession(
        Path(arguments["path"]).read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return {}, {}


def predict_plain(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Outputs of the graph as it was written, named by `outputs` in their order."""
    values = held[PLAIN].run(arguments["outputs"], {name: _texts(tensor) for name, tensor in tensors.items()})
    return {}, {name: _bytes(value) for name, value in zip(arguments["outputs"], values, strict=True)}


def median_seconds(run: Run, seconds_of: Callable[[Run], float] | None = None) -> float:
    """The median time of a call: one that warms up, then as many as fit a moment, two to fifty.

    `seconds_of` takes the time of one; the wall's clock does, if nothing else is said. The first one pays for memory:
    64 images through MobileNetV2 took 1.4 s at first and 0.36 s from then on.
    """
    timed = seconds_of or wall_seconds
    first = timed(run)
    if first > LONG_SECONDS:
        return first
    times = [timed(run), timed(run)]
    while len(times) < REPEATS and sum(times) < REPEAT_SECONDS:
        times.append(timed(run))
    return float(np.median(times))


def wall_seconds(run: Run) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


def undisturbed_seconds(run: Run) -> float:
    """How long a call would take on an idle machine: no longer than the processor time that this process spends on it.

    Preparations run beside whatever serves: on a busy machine an image through MobileNetV2 took 16 ms by the wall's
    clock, of which 4 ms were its own. A call of less than a millisecond is rarely interrupted.
    """
    processor = time.process_time()
    wall = wall_seconds(run)
    return wall if wall < SHORT_SECONDS else min(wall, max(time.process_time() - processor, SHORT_SECONDS))


def _texts(tensor: Tensor) -> Tensor:
    return np.vectorize(bytes.decode, otypes=[object])(tensor) if tensor.dtype == object else tensor


def _bytes(tensor: Tensor) -> Tensor:
    return np.vectorize(str.encode, otypes=[object])(tensor) if tensor.dtype == object else tensor
