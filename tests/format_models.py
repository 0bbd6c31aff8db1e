"""Models of six kinds in every format of uploads, with their own frameworks' answers.

`python -m tests.format_models FOLDER [KIND …]` makes them. Each file has a `.npz` beside it: inputs, and what Keras,
ONNX Runtime or TensorFlow answered to them.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import tensorflow as tf
from keras import layers
from onnx import TensorProto, helper

ROWS = 4

Inputs = dict[str, np.ndarray]
Build = Callable[[np.random.Generator], tuple[keras.Model, Inputs]]


def image(random: np.random.Generator) -> tuple[keras.Model, Inputs]:
    photo = keras.Input((24, 24, 3), name="photo")
    x = layers.Rescaling(1 / 255)(photo)
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.BatchNormalization()(x)
    x = layers.GlobalAveragePooling2D()(layers.SeparableConv2D(8, 3, activation="relu")(x))
    return keras.Model(photo, layers.Dense(5, "softmax")(x)), {"photo": random.random((ROWS, 24, 24, 3), np.float32)}


def text(random: np.random.Generator) -> tuple[keras.Model, Inputs]:  # noqa: ARG001 - as the others
    words = layers.TextVectorization(output_sequence_length=6)
    words.adapt(["a fine film", "a bad film"])
    review = keras.Input((1,), dtype="string", name="review")
    x = layers.GlobalAveragePooling1D()(layers.Embedding(words.vocabulary_size(), 4)(words(review)))
    texts = np.array([["a fine film"], ["bad, bad"], [""], ["never seen before"]], object)
    return keras.Model(review, layers.Dense(2, "softmax")(x)), {"review": texts}


def audio(random: np.random.Generator) -> tuple[keras.Model, Inputs]:
    samples = keras.Input((1024,), name="samples")
    spectrogram = layers.MelSpectrogram(64, 32, 64, sampling_rate=8000, num_mel_bins=8)(samples)
    pooled = layers.GlobalAveragePooling1D()(layers.Permute((2, 1))(spectrogram))
    return keras.Model(samples, layers.Dense(3)(pooled)), {
        "samples": random.standard_normal((ROWS, 1024)).astype(np.float32)
    }


def waves() -> keras.Model:
    """What audio models do without a spectrogram, for which Keras writes no valid ONNX."""
    samples = keras.Input((1024,), name="samples")
    x = layers.Conv1D(8, 16, 8, activation="relu")(layers.Reshape((1024, 1))(samples))
    return keras.Model(samples, layers.Dense(3)(layers.GlobalMaxPooling1D()(x)))


def tabular(random: np.random.Generator) -> tuple[keras.Model, Inputs]:
    features = keras.Input((6,), name="features")
    x = layers.BatchNormalization()(features)
    x = layers.Dense(3, "softmax")(layers.Dense(16, "relu")(x))
    return keras.Model(features, x), {"features": random.random((ROWS, 6), np.float32)}


def recurrent(random: np.random.Generator) -> tuple[keras.Model, Inputs]:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Bidirectional(layers.LSTM(6))(layers.Embedding(50, 8)(tokens))
    return keras.Model(tokens, layers.Dense(3, "softmax")(x)), {"tokens": random.integers(1, 50, (ROWS, 9), np.int32)}


def two_input(random: np.random.Generator) -> tuple[keras.Model, Inputs]:
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate()([layers.Dense(5, "relu")(left), right])
    made = keras.Model([left, right], {"price": layers.Dense(2)(joined), "sure": layers.Dense(1, "sigmoid")(joined)})
    return made, {"left": random.random((ROWS, 4), np.float32), "right": random.random((ROWS, 3), np.float32)}


KINDS: dict[str, Build] = {
    "image": image, "text": text, "audio": audio, "tabular": tabular, "recurrent": recurrent, "two-input": two_input,
}  # fmt: skip


def main(folder: Path, kinds: list[str]) -> None:
    for kind in kinds or KINDS:
        keras.utils.set_random_seed(7)
        model, inputs = KINDS[kind](np.random.default_rng(7))
        model.save(folder / f"{kind}.keras")
        _answered(folder / f"{kind}.keras", inputs, _names(model(_flat(inputs), training=False)))
        if kind != "text":  # an adapted vocabulary is not in a .h5 file
            model.save(folder / f"{kind}.h5")
            again = keras.saving.load_model(folder / f"{kind}.h5", compile=False)
            _answered(folder / f"{kind}.h5", inputs, _names(again(_flat(inputs), training=False)))
        _savedmodel(folder, kind, model, inputs)
        if kind == "text":
            _lookup(folder / "text.onnx")
            _answered_by_onnx(folder / "text.onnx", {"word": np.array([["red"], ["green"], ["blue"], [""]], object)})
        else:
            exported = waves() if kind == "audio" else model
            exported(_flat(inputs))
            exported.export(folder / f"{kind}.onnx", format="onnx", verbose=False)
            _answered_by_onnx(folder / f"{kind}.onnx", inputs)


def _flat(inputs: Inputs) -> Any:  # noqa: ANN401 - one tensor, or several in the model's order
    tensors = [tf.constant(array) for array in inputs.values()]
    return tensors if len(tensors) > 1 else tensors[0]


def _names(answer: Any) -> Inputs:  # noqa: ANN401 - what a model answers
    if isinstance(answer, dict):
        return {name: value.numpy() for name, value in answer.items()}
    return {f"output_{place}": value.numpy() for place, value in enumerate(keras.tree.flatten(answer))}


def _savedmodel(folder: Path, kind: str, model: keras.Model, inputs: Inputs) -> None:
    model.export(folder / kind, verbose=False)
    shutil.make_archive(str(folder / kind), "zip", folder / kind)
    function = tf.saved_model.load(folder / kind).signatures["serving_default"]
    names = function.structured_input_signature[1]
    given = dict(zip(names, inputs.values(), strict=True)) if len(names) == 1 else inputs
    found = function(**{name: tf.constant(value) for name, value in given.items()})
    _answered(folder / f"{kind}.zip", given, {name: value.numpy() for name, value in found.items()})


def _answered_by_onnx(path: Path, inputs: Inputs) -> None:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    given = dict(zip(names, inputs.values(), strict=True)) if len(names) == 1 else inputs
    outputs = [value.name for value in session.get_outputs()]
    _answered(path, given, dict(zip(outputs, session.run(outputs, given), strict=True)))


def _answered(path: Path, inputs: Inputs, outputs: Inputs) -> None:
    arrays = {f"inputs.{name}": array.astype("U") if array.dtype == object else array for name, array in inputs.items()}
    np.savez(
        path.with_name(f"{path.name}.npz"), **arrays, **{f"outputs.{name}": each for name, each in outputs.items()}
    )


def _lookup(path: Path) -> None:
    """A table of texts, as ONNX has it."""
    node = helper.make_node(
        "LabelEncoder", ["word"], ["value"], domain="ai.onnx.ml",
        keys_strings=["red", "green"], values_floats=[1.0, 2.0], default_float=-1.0,
    )  # fmt: skip
    values = [helper.make_tensor_value_info("word", TensorProto.STRING, ["batch", 1])]
    answers = [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["batch", 1])]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(
        helper.make_model(helper.make_graph([node], "table", values, answers), opset_imports=opsets, ir_version=8), path
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
