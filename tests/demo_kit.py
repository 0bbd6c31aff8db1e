"""What the demo has for files, in small: models that need no training, their descriptions, and the example files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from model_store.signature import Signature, TensorSpec
from sluice.client import Client
from sluice.demo_descriptions import DESCRIPTIONS, TOPICS, describe
from sluice.demo_examples import png_of, wav_of
from sluice.trained import DIGIT, SENTENCE, TONE

TEXTS = Signature((TensorSpec("text", "string", (None, 1)),), (TensorSpec("topic", "float32", (None, len(TOPICS))),))
TONES = Signature((TensorSpec("samples", "float32", (None, 4000)),), (TensorSpec("wave", "float32", (None, 5)),))


def undecided(path: Path, signature: Signature) -> Path:
    """An ONNX file for which every class is equally likely, whatever it is given."""
    [given], [answered] = signature.inputs, signature.outputs
    classes = answered.shape[1]
    assert classes is not None
    kind = TensorProto.STRING if given.dtype == "string" else TensorProto.FLOAT
    nodes = [
        helper.make_node("Shape", [given.name], ["batch"], start=0, end=1),
        helper.make_node("Concat", ["batch", "classes"], ["shape"], axis=0),
        helper.make_node(
            "ConstantOfShape", ["shape"], [answered.name],
            value=helper.make_tensor("value", TensorProto.FLOAT, [1], [1 / classes]),
        ),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "undecided",
        [helper.make_tensor_value_info(given.name, kind, ["n", given.shape[1]])],
        [helper.make_tensor_value_info(answered.name, TensorProto.FLOAT, ["n", classes])],
        [helper.make_tensor("classes", TensorProto.INT64, [1], [classes])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def describe_all(admin: Client) -> None:
    """What the demo says of its models."""
    for model in DESCRIPTIONS:
        describe(admin, model)


def write_examples(folder: Path) -> None:
    """The files that the demo's commands send."""
    (folder / DIGIT).write_bytes(png_of(np.zeros((28, 28), np.uint8)))
    (folder / SENTENCE).write_text("today the train was delayed")
    (folder / TONE).write_bytes(wav_of(np.sin(np.arange(4000) / 3) * 0.5, 8000))
