"""Other forms of an ONNX graph that passed its proof: 16 bits, 8 bits, fewer weights; runs in a runner only."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from model_store.signature import Tensor, Tensors
from workers.errors import brief

# Fewer numbers than these are biases and scales: they cost nothing, and each of them matters.
PRUNED_NUMBERS = 256
# The gain of the highest level over this one was below a hundredth for weights, at several times the time.
PACKING_LEVEL = 6
# What makes an answer of a last layer's numbers. In 8 bits a probability would be a multiple of 1/255.
ANSWERING = frozenset(
    {
        "Softmax", "LogSoftmax", "Sigmoid", "HardSigmoid", "Tanh", "Softplus", "Clip", "Exp", "ReduceSum", "ReduceMax",
        "Sub", "Div", "Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose",
    }
)  # fmt: skip

Json = dict[str, Any]


def halve(held: Json, arguments: Json, tensors: Tensors) -> tuple[Json, Tensors]:  # noqa: ARG001 - a command's signature
    """Writes `target`, the graph `source` computing in 16 bits between inputs and outputs that stay as they were.

    Answers `reason` where that cannot be, and nothing else: so do all of these commands.
    """
    from onnxruntime.transformers.float16 import convert_float_to_float16

    def made() -> None:
        graph = convert_float_to_float16(onnx.load(arguments["source"]), keep_io_types=True)
        Path(arguments["target"]).write_bytes(graph.SerializeToString(deterministic=True))

    return _reported(made), {}


def quantise(held: Json, arguments: Json, tensors: Tensors) -> tuple[Json, Tensors]:  # noqa: ARG001 - a command's signature
    """Writes `target`, the graph `source` with weights of 8 bits.

    With `tensors`, inputs of several instances, activations are quantised to the ranges that these show, but for what
    makes the answers; without, to those of each call.
    """
    from onnxruntime import quantization

    def made() -> None:
        if tensors:
            graph = onnx.load(arguments["source"])
            quantization.quantize_static(
                graph,
                arguments["target"],
                _reader(tensors),
                quant_format=quantization.QuantFormat.QDQ,
                weight_type=quantization.QuantType.QInt8,
                nodes_to_exclude=_answering(graph.graph),
            )
        else:
            quantization.quantize_dynamic(
                onnx.load(arguments["source"]), arguments["target"], weight_type=quantization.QuantType.QInt8
            )

    return _reported(made), {}


def prune(held: Json, arguments: Json, tensors: Tensors) -> tuple[Json, Tensors]:  # noqa: ARG001 - a command's signature
    """Writes `target`, the graph `source` with the `share` of weights that are nearest to zero set to zero, packed.

    Answers `detail`, what that won.
    """
    share = float(arguments["share"])
    detail = ""

    def made() -> None:
        nonlocal detail
        graph = onnx.load(arguments["source"])
        before = graph.ByteSize()
        zeros, all_weights = _prune(graph.graph, share)
        data = gzip.compress(graph.SerializeToString(deterministic=True), PACKING_LEVEL, mtime=0)
        Path(arguments["target"]).write_bytes(data)
        detail = (
            f"{zeros:,} of {all_weights:,} weights are zero; {before:,} bytes are packed into {len(data):,}, "
            f"{len(data) / before:.0%}"
        )

    return _reported(made) | {"detail": detail}, {}


def _reported(made: Callable[[], None]) -> Json:
    try:
        made()
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - converters for arbitrary graphs; the model is served without it
        return {"reason": f"the conversion failed: {brief(error)}"}
    return {}


def _answering(graph: onnx.GraphProto) -> list[str]:
    """The names of the nodes from the last layer's numbers to the outputs; nodes without a name are given one."""
    made_by = {output: node for node in graph.node for output in node.output}
    found: dict[str, None] = {}
    left = [output.name for output in graph.output]
    while left:
        node = made_by.get(left.pop())
        if node is None or node.op_type not in ANSWERING or node.name in found:
            continue
        node.name = node.name or f"answering {len(found)} {node.output[0]}"
        found[node.name] = None
        left += node.input
    return list(found)


def _reader(tensors: Tensors) -> Any:  # noqa: ANN401 - a subclass of what is imported here only
    from onnxruntime.quantization import CalibrationDataReader

    class Instances(CalibrationDataReader):  # type: ignore[misc] # ONNX Runtime comes without types
        """The calibration samples one by one: whatever batch the graph takes, it takes one."""

        def __init__(self) -> None:
            self._rows = _rows(tensors)

        def get_next(self) -> Mapping[str, Tensor] | None:
            return next(self._rows, None)

    return Instances()


def _rows(tensors: Tensors) -> Iterator[Mapping[str, Tensor]]:
    texts = {name for name, tensor in tensors.items() if tensor.dtype == object}
    feed = {name: _texts(tensor) if name in texts else tensor for name, tensor in tensors.items()}
    for row in range(min(len(tensor) for tensor in tensors.values())):
        yield {name: tensor[row : row + 1] for name, tensor in feed.items()}


def _texts(tensor: Tensor) -> Tensor:
    texts: Tensor = np.vectorize(bytes.decode, otypes=[object])(tensor)
    return texts


def _prune(graph: onnx.GraphProto, share: float) -> tuple[int, int]:
    """How many of the weights of this graph are zero afterwards, of how many."""
    zeros = total = 0
    for position, held in enumerate(graph.initializer):
        if held.data_type != onnx.TensorProto.FLOAT or len(held.dims) < 2:
            continue
        weights = numpy_helper.to_array(held).copy()
        if weights.size < PRUNED_NUMBERS:
            continue
        sizes = np.abs(weights)
        weights[sizes <= np.quantile(sizes, share)] = 0.0
        graph.initializer[position].CopyFrom(numpy_helper.from_array(weights, held.name))
        zeros, total = zeros + int((weights == 0).sum()), total + weights.size
    if not total:
        raise ValueError("no weights are large enough to be pruned")
    return zeros, total
