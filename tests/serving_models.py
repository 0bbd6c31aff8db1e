"""The models that TensorFlow Serving's documentation uses, and models of every dtype that change nothing."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from model_store.signature import Signature, TensorSpec
from tests.processes import Cluster
from tests.queue_kit import serve_model

HALF = Signature((TensorSpec("x", "float32", (None,)),), (TensorSpec("y", "float32", (None,)),))
DTYPES = {
    "bool": TensorProto.BOOL,
    "float16": TensorProto.FLOAT16,
    "float32": TensorProto.FLOAT,
    "float64": TensorProto.DOUBLE,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
    "uint8": TensorProto.UINT8,
    "uint64": TensorProto.UINT64,
}


def serve_halves(serving: Cluster) -> None:
    """`half_plus_two` and `half_plus_three`, unless they are there."""
    for name, addend in (("half_plus_two", 2.0), ("half_plus_three", 3.0)):
        path = serving.folder / f"{name}.onnx"
        if not path.exists():
            serve_model(serving.sessions, serving.artifacts, half_plus(path, addend), name, signature=HALF)


def serve_every_dtype(serving: Cluster) -> list[str]:
    """Models `same-float32` and so on, which answer `y` with the vector `x`; their names."""
    for dtype, number in DTYPES.items():
        signature = Signature((TensorSpec("x", dtype, (None,)),), (TensorSpec("y", dtype, (None,)),))
        path = same(serving.folder / f"same-{dtype}.onnx", number)
        serve_model(serving.sessions, serving.artifacts, path, f"same-{dtype}", signature=signature)
    return [f"same-{dtype}" for dtype in DTYPES]


def half_plus(path: Path, addend: float) -> Path:
    """An ONNX file with y = x / 2 + addend for single numbers."""
    nodes = [helper.make_node("Mul", ["x", "half"], ["halved"]), helper.make_node("Add", ["halved", "addend"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "half_plus",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])],
        [
            helper.make_tensor("half", TensorProto.FLOAT, [1], [0.5]),
            helper.make_tensor("addend", TensorProto.FLOAT, [1], [addend]),
        ],
    )
    return _saved(path, graph)


def same(path: Path, number: int) -> Path:
    """An ONNX file that answers with the vector that it is given."""
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "same",
        [helper.make_tensor_value_info("x", number, ["batch"])],
        [helper.make_tensor_value_info("y", number, ["batch"])],
    )
    return _saved(path, graph)


def _saved(path: Path, graph: onnx.GraphProto) -> Path:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
