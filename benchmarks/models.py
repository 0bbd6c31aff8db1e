"""The models that are measured: `python -m benchmarks.models FOLDER [--small]` makes their files.

Without `--small` they are Keras models: the demo's trained digits, and MobileNetV2 with random weights. With it they
are small ONNX models with the same inputs and outputs, made in a second, for runs that look at the benchmark itself.
The third is a small ONNX model either way: 1,000 classes by a photograph's mean colour.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

DIGITS = "mnist"
PHOTOGRAPHS = "mobilenet"
# Photographs too, but next to nothing to compute: what it costs is to bring them there.
COLOURS = "colours"
SEED = 7


def small(folder: Path) -> None:
    """Write `mnist.onnx` and `mobilenet.onnx`: softmax of one layer of random weights, 10 and 1000 classes."""
    _layer(folder / f"{DIGITS}.onnx", (28, 28), 10)
    # A photograph's mean is taken first: a layer over all of its pixels would have 150 million weights.
    _layer(folder / f"{PHOTOGRAPHS}.onnx", (224, 224, 3), 1000, means=True)


def full(folder: Path) -> None:
    """Write `mnist.keras` and `mobilenet.keras`; what an earlier run has left is taken as it is."""
    from sluice.demo_training import train
    from sluice.trained import Trained

    if Trained.read(folder) is None:
        train(folder)
    if not (folder / f"{PHOTOGRAPHS}.keras").exists():
        import keras

        keras.utils.set_random_seed(SEED)
        # Under another name first: a file that is there is complete.
        unfinished = folder / "unfinished.keras"
        keras.applications.MobileNetV2(weights=None).save(unfinished)
        unfinished.replace(folder / f"{PHOTOGRAPHS}.keras")


def _layer(path: Path, shape: tuple[int, ...], classes: int, *, means: bool = False) -> None:
    features = shape[-1] if means else int(np.prod(shape))
    weights = np.random.default_rng(SEED).normal(size=(features, classes)).astype(np.float32)
    first = (
        helper.make_node("ReduceMean", ["image"], ["flat"], axes=[1, 2], keepdims=0)
        if means
        else helper.make_node("Reshape", ["image", "rows"], ["flat"])
    )
    initializers = [numpy_helper.from_array(weights, "weights")]
    if not means:
        initializers.append(numpy_helper.from_array(np.array([-1, features]), "rows"))
    graph = helper.make_graph(
        [
            first,
            helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["classes"], axis=1),
        ],
        "layer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", *shape])],
        [helper.make_tensor_value_info("classes", TensorProto.FLOAT, ["batch", classes])],
        initializers,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def colours(folder: Path) -> None:
    """Write `colours.onnx`."""
    _layer(folder / f"{COLOURS}.onnx", (224, 224, 3), 1000, means=True)


if __name__ == "__main__":
    (small if "--small" in sys.argv else full)(Path(sys.argv[1]))
    colours(Path(sys.argv[1]))
