"""Small Keras models saved for tests, with Keras's own answers; made in a process of their own, once per session.

The test process never imports TensorFlow: it takes seconds, and nothing that serves may need it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from model_store.signature import Tensors

if TYPE_CHECKING:
    import keras

ROOT = Path(__file__).resolve().parent.parent
NAMES = ("dense", "dense_h5", "conv", "lstm", "two_input", "text")
INSTANCES = 5


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A saved model: inputs by the names of its signature, and Keras's own outputs for them."""

    name: str
    path: Path
    inputs: Tensors
    outputs: Tensors


def build_models(folder: Path) -> dict[str, ModelFile]:
    """Trains nothing, saves each model into the folder, and returns them by name."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "KERAS_BACKEND": "tensorflow",
    }
    command = [sys.executable, "-m", "tests.models", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return {name: read_model(folder, name) for name in NAMES}


def read_model(folder: Path, name: str) -> ModelFile:
    """One of the models that `build_models` saved."""
    with np.load(folder / f"{name}.npz") as arrays:
        found = {key: _bytes_as_objects(arrays[key]) for key in arrays.files}
    parts = [
        {key.partition(".")[2]: array for key, array in found.items() if key.startswith(f"{kind}.")}
        for kind in ("inputs", "outputs")
    ]
    return ModelFile(name, folder / f"{name}{'.h5' if name.endswith('_h5') else '.keras'}", *parts)


@pytest.fixture(scope="session")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelFile]:
    """Models by name: dense, dense_h5, conv, lstm, two_input, text; `configs.json` lies beside them."""
    return build_models(tmp_path_factory.mktemp("models"))


def _bytes_as_objects(array: np.ndarray) -> np.ndarray:
    return array.astype(object) if array.dtype.kind == "S" else array


def _build(folder: Path) -> None:
    import keras

    keras.utils.set_random_seed(7)
    random = np.random.default_rng(7)
    images = random.random((INSTANCES, 28, 28), np.float32)
    dense = _dense()
    dense.train_on_batch(images, np.arange(INSTANCES))  # so that the file holds an optimizer's state too
    _save(folder / "dense.keras", dense, {"image": images})
    _save(folder / "dense_h5.h5", dense, {"image": images})
    _save(folder / "conv.keras", _conv(), {"photo": random.random((INSTANCES, 16, 16, 3), np.float32)})
    _save(folder / "lstm.keras", _lstm(), {"tokens": random.integers(0, 50, (INSTANCES, 12)).astype(np.int32)})
    pair = {"left": random.random((INSTANCES, 4), np.float32), "right": random.random((INSTANCES, 3), np.float32)}
    _save(folder / "two_input.keras", _two_input(), pair)
    texts = ["a fine film", "a bad one", "", "FINE! fine?", "never seen before"]
    _save(folder / "text.keras", _text(), {"review": np.array([[text] for text in texts], object)})
    (folder / "configs.json").write_text(json.dumps(_configs()))


def _save(path: Path, model: keras.Model, inputs: dict[str, Any]) -> None:
    import keras
    import tensorflow

    model.save(path)
    tensors = [tensorflow.constant(array) for array in inputs.values()]
    answers = keras.tree.flatten(model(tensors if len(tensors) > 1 else tensors[0], training=False))
    arrays = {
        f"inputs.{name}": np.strings.encode(array.astype(str)) if array.dtype == object else array
        for name, array in inputs.items()
    }
    arrays |= {f"outputs.output_{index}": answer.numpy() for index, answer in enumerate(answers)}
    np.savez(path.with_suffix(".npz"), **arrays)


def _dense() -> keras.Model:
    """The network of every tutorial on digits."""
    from keras import Input, Sequential, layers

    model = Sequential(
        [Input((28, 28), name="image"), layers.Flatten(), layers.Dense(16, "relu"), layers.Dense(10, "softmax")]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def _conv() -> keras.Model:
    """A residual block with an operator, constants and the exact GELU, whose erfc ONNX lacks."""
    import keras
    from keras import layers

    photo = keras.Input((16, 16, 3), name="photo")
    x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(photo)
    x = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(x) + x * 0.5
    x = layers.MaxPooling2D()(layers.DepthwiseConv2D(3, activation="gelu")(x))
    return keras.Model(photo, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def _lstm() -> keras.Model:
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input((None,), dtype="int32", name="tokens"),
            layers.Embedding(50, 8, mask_zero=True),
            layers.Bidirectional(layers.LSTM(6)),
            layers.Dense(3, "softmax"),
        ]
    )


def _two_input() -> keras.Model:
    import keras
    from keras import layers

    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate()([layers.Dense(5, layers.LeakyReLU())(left), right])
    return keras.Model([left, right], [layers.Dense(2)(joined), layers.Dense(1, "sigmoid")(joined)])


def _text() -> keras.Model:
    """An adapted vocabulary, which Keras keeps as an asset beside the configuration."""
    import keras
    from keras import layers

    words = layers.TextVectorization(output_mode="int", output_sequence_length=6)
    words.adapt(["a fine film", "a bad film"])
    review = keras.Input((1,), dtype="string", name="review")
    x = layers.Embedding(words.vocabulary_size() + 1, 4)(words(review))
    return keras.Model(review, layers.Dense(2, "softmax")(layers.GlobalAveragePooling1D()(x)))


def _configs() -> dict[str, Any]:
    """What Keras itself says: its exported classes by module, and configurations of many built-in layers."""
    import keras
    from keras.src import api_export

    exported: dict[str, list[str]] = {}
    modules = ("layers", "initializers", "regularizers", "constraints", "dtype_policies", "quantizers")
    for kind in (
        value for module in modules for value in vars(getattr(keras, module)).values() if isinstance(value, type)
    ):
        module, _, name = str(api_export.get_name_from_symbol(kind)).rpartition(".")
        exported.setdefault(module, []).append(name)
    for module in ("numpy", "nn", "math", "linalg", "image", "core", "einops"):
        kinds = vars(importlib.import_module(f"keras.src.ops.{module}")).values()
        exported[f"keras.src.ops.{module}"] = [
            kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, keras.Operation)
        ]
    layers = [keras.saving.serialize_keras_object(layer) for layer in _many_layers()]
    return {"exported": exported, "layers": layers, "activations": sorted(keras.src.activations.ALL_OBJECTS_DICT)}


def _many_layers() -> list[keras.Layer]:
    import keras
    from keras import initializers, layers

    dense = layers.Dense(
        2,
        kernel_initializer=initializers.Constant(0.5),
        kernel_regularizer="l2",
        kernel_constraint=keras.constraints.MaxNorm(2),
        dtype="mixed_float16",
    )
    normalization = layers.Normalization()
    normalization.adapt(np.random.default_rng(1).random((8, 3)))
    made = [
        dense,
        normalization,
        layers.Dense(2, kernel_initializer=initializers.RandomNormal(seed=123456789)),
        layers.Bidirectional(layers.GRU(2, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(2)),
        layers.RNN([layers.LSTMCell(2), layers.SimpleRNNCell(3)]),
        layers.SpectralNormalization(layers.Conv1D(2, 3)),
        layers.MultiHeadAttention(2, 4, attention_axes=(1,)),
        layers.EinsumDense("abc,cd->abd", output_shape=(None, 8), bias_axes="d"),
        layers.TextVectorization(vocabulary=["and/or", "http://x", "</s>"], ngrams=(1, 2), split="character"),
        layers.StringLookup(vocabulary=["a", "b"], oov_token="</s>", mask_token=""),
        layers.IntegerLookup(vocabulary=[3, 1_000_000_007]),
        layers.Hashing(3_000_000, salt=[133712345678, 1]),
        layers.CategoryEncoding(4, "multi_hot"),
        layers.Discretization(bin_boundaries=[0.0, 1.5]),
        layers.Embedding(2_000_000, 4),
        layers.Activation("swish"),
        layers.Dropout(0.5, noise_shape=(None, 1), seed=3),
        layers.PReLU(shared_axes=[1, 2]),
        layers.Reshape((-1, 7)),
        layers.Permute((2, 1)),
        layers.ZeroPadding2D(((1, 0), (2, 3))),
        layers.RandomRotation(0.2, seed=2_147_483_647),
        layers.ConvLSTM2D(2, 3),
    ]
    plain = """
        Flatten LayerNormalization BatchNormalization UnitNormalization RMSNormalization ReLU ELU Softmax Add
        Subtract Multiply Average Maximum Minimum Concatenate GlobalMaxPooling1D MaxPooling2D Masking
        UpSampling2D Cropping2D Identity Attention AdditiveAttention RandomFlip
    """
    return made + [getattr(layers, name)() for name in plain.split()]


if __name__ == "__main__":
    _build(Path(sys.argv[1]))
