"""Small ONNX files, made without TensorFlow: quick to prepare."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper


def line(path: Path, *, weights: list[float], bias: float) -> Path:
    """y = wᵀx + b on batches of float32 rows."""
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["wx"]), helper.make_node("Add", ["wx", "b"], ["y"])],
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", len(weights)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1])],
        [
            helper.make_tensor("w", TensorProto.FLOAT, [len(weights), 1], weights),
            helper.make_tensor("b", TensorProto.FLOAT, [1], [bias]),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
