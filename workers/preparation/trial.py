"""Commands that run an ONNX graph in a runner with the predictor that serves it: for proofs and measurements."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from model_store.signature import Signature, Tensor, Tensors

HELD, PLAIN = "onnx_predictor", "onnx_plain_session"
REPEAT_SECONDS = 0.15
REPEATS = 50


def start_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Imports ONNX Runtime, so that what the process grows by afterwards is the model's own."""
    from workers.runtimes import onnx  # noqa: F401 - see above

    return {}, {}


def load_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Loads the file `path`, whose `signature` is given as its JSON. PredictionFailed where that cannot be."""
    from workers.runtimes.onnx import OnnxPredictor

    held[HELD] = OnnxPredictor(Path(arguments["path"]), Signature.from_json(arguments["signature"]), 0)
    return {}, {}


def predict_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Outputs of the loaded graph."""
    return {}, held[HELD].run(tensors)


def time_onnx(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Answers `seconds`, the median of several runs, as a serving worker would see them: without a pipe between."""
    return {"seconds": median_seconds(lambda: held[HELD].run(tensors))}, {}


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


def median_seconds(run: Any) -> float:  # noqa: ANN401 - a call without arguments, whatever it returns
    """The median time of a call: one that warms up, then as many as fit a moment, up to fifty."""
    begin = time.perf_counter()
    run()
    first = time.perf_counter() - begin
    if first > REPEAT_SECONDS:
        return first
    times: list[float] = []
    until = begin + first + REPEAT_SECONDS
    while len(times) < REPEATS and (not times or time.perf_counter() < until):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    return float(np.median(times))


def _texts(tensor: Tensor) -> Tensor:
    return np.vectorize(bytes.decode, otypes=[object])(tensor) if tensor.dtype == object else tensor


def _bytes(tensor: Tensor) -> Tensor:
    return np.vectorize(str.encode, otypes=[object])(tensor) if tensor.dtype == object else tensor
