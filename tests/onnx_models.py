"""Small ONNX files, made without TensorFlow: quick to prepare."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


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


def classifier(path: Path, *, scale: float = 1.0, softmax: bool = False) -> Path:
    """Eight classes from 64 floats: each class sums eight of them; all other weights are next to nothing.

    Its nodes have no names, as ONNX allows.
    """
    weights = np.random.default_rng(3).normal(0.0, 1e-4, (64, 8)).astype(np.float32)
    for number in range(8):
        weights[8 * number : 8 * number + 8, number] += scale
    nodes = [helper.make_node("MatMul", ["x", "w"], ["scores" if softmax else "y"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["scores"], ["y"], axis=-1))
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def digits(path: Path) -> Path:
    """An ONNX file that takes images of 28x28 pixels and finds all ten digits equally likely where there are none."""
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["image"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weights"], ["scores"]),
            helper.make_node("Softmax", ["scores"], ["output_0"]),
        ],
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 28, 28])],
        [helper.make_tensor_value_info("output_0", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(np.ones((784, 10), np.float32), "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
