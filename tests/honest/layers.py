"""One small model around each built-in layer of Keras; imported only where Keras is."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras
from keras import layers

# Code, or nothing of their own: each is a case of tests/hostile, or has no meaning without a subclass.
REFUSED = {
    "FlaxLayer": "runs code of another framework, pickled",
    "JaxLayer": "runs code of another framework, pickled",
    "Lambda": "runs bytecode",
    "Layer": "an abstract class",
    "Pipeline": "holds layers of tf.data, which a served model does not need",
    "TFSMLayer": "loads a SavedModel from a path that the file names",
    "TorchModuleWrapper": "unpickles",
    "Wrapper": "an abstract class",
}

ARGUMENTS: dict[str, dict[str, Any]] = {
    "Activation": {"activation": "relu"},
    "AugMix": {"value_range": (0, 1)},
    "AutoContrast": {"value_range": (0, 1)},
    "CategoryEncoding": {"num_tokens": 4},
    "CenterCrop": {"height": 4, "width": 4},
    "ContrastLimitedAdaptiveHistogramEqualization": {"value_range": (0, 255)},
    "Dense": {"units": 3, "activation": "relu"},
    "Discretization": {"bin_boundaries": [0.25, 0.5]},
    "Dot": {"axes": 1},
    "EinsumDense": {"equation": "...x,xy->...y", "output_shape": 3},
    "Embedding": {"input_dim": 10, "output_dim": 3},
    "GroupNormalization": {"groups": 2},
    "GroupQueryAttention": {"head_dim": 4, "num_query_heads": 4, "num_key_value_heads": 2},
    "HashedCrossing": {"num_bins": 5},
    "Hashing": {"num_bins": 5, "salt": 133137},
    "IntegerLookup": {"vocabulary": [3, 5, 7]},
    "MelSpectrogram": {"num_mel_bins": 8, "fft_length": 64, "sequence_stride": 32, "sampling_rate": 8000},
    "MultiHeadAttention": {"num_heads": 2, "key_dim": 4},
    "Normalization": {"mean": [0.1] * 4, "variance": [0.5] * 4},
    "Permute": {"dims": (2, 1)},
    "RandAugment": {"value_range": (0, 1)},
    "RandomBrightness": {"factor": 0.2},
    "RandomColorDegeneration": {"factor": 0.5},
    "RandomColorJitter": {"value_range": (0, 1), "hue_factor": 0.1},
    "RandomContrast": {"factor": 0.2},
    "RandomCrop": {"height": 8, "width": 8, "seed": 3},  # it leaves images as they are, and declares the other size
    "RandomErasing": {"factor": 0.5},
    "RandomGaussianBlur": {"factor": 0.5},
    "RandomHue": {"factor": 0.2},
    "RandomPosterization": {"factor": 4},
    "RandomRotation": {"factor": 0.1, "seed": 7},
    "RandomSaturation": {"factor": 0.2},
    "RandomSharpness": {"factor": 0.2},
    "RandomShear": {"x_factor": (0.0, 0.1)},  # Keras cannot read what it writes for 0.1
    "RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1},
    "RandomZoom": {"height_factor": 0.1},
    "RepeatVector": {"n": 2},
    "Rescaling": {"scale": 1 / 255},
    "Reshape": {"target_shape": (3, 8)},
    "Resizing": {"height": 4, "width": 4},
    "ReversibleEmbedding": {"input_dim": 10, "output_dim": 3},
    "STFTSpectrogram": {"mode": "log", "frame_length": 64, "frame_step": 32, "fft_length": 64},
    "StringLookup": {"vocabulary": ["a", "b", "</s>", "http://a.example/b"], "oov_token": "<unk/>"},
    "TextVectorization": {"vocabulary": ["a", "b", "../c"], "output_sequence_length": 4},
}  # fmt: skip
ARGUMENTS |= {f"Adaptive{kind}Pooling{rank}D": {"output_size": 2} for kind in ("Average", "Max") for rank in (1, 2, 3)}
ARGUMENTS |= {f"AveragePooling{rank}D": {"pool_size": 2} for rank in (1, 2, 3)}
ARGUMENTS |= {name: {"rate": 0.1} for name in ("AlphaDropout", "Dropout", "GaussianDropout")}
ARGUMENTS |= {f"SpatialDropout{rank}D": {"rate": 0.1} for rank in (1, 2, 3)} | {"GaussianNoise": {"stddev": 0.1}}
ARGUMENTS |= {f"Conv{rank}D{end}": {"filters": 2, "kernel_size": 2} for rank in (1, 2, 3) for end in ("", "Transpose")}
ARGUMENTS |= {f"SeparableConv{rank}D": {"filters": 2, "kernel_size": 2} for rank in (1, 2)}
ARGUMENTS |= {f"DepthwiseConv{rank}D": {"kernel_size": 2} for rank in (1, 2)}
ARGUMENTS |= {f"ConvLSTM{rank}D": {"filters": 2, "kernel_size": 2} for rank in (1, 2, 3)}
ARGUMENTS |= {name: {"units": 3} for name in ("LSTM", "GRU", "SimpleRNN", "LSTMCell", "GRUCell", "SimpleRNNCell")}

_IMAGE = re.compile(r"Random|Aug|Contrast|CenterCrop|Equalization|Resizing|Solarization|Rescaling")
_INPUTS: dict[str, list[tuple[tuple[int | None, ...], str]]] = {
    "Add Average Concatenate Dot Maximum Minimum Multiply Subtract": [((4,), "float32"), ((4,), "float32")],
    "AdditiveAttention Attention GroupQueryAttention MultiHeadAttention": [((6, 4), "float32"), ((6, 4), "float32")],
    "CategoryEncoding IntegerLookup Hashing": [((3,), "int64")],
    "Embedding ReversibleEmbedding": [((None,), "int32")],
    "HashedCrossing": [((1,), "int64"), ((1,), "int64")],
    "StringLookup": [((2,), "string")],
    "TextVectorization": [((1,), "string")],
    "MelSpectrogram": [((512,), "float32")],
    "STFTSpectrogram": [((512, 1), "float32")],
    "RepeatVector Normalization Dense ActivityRegularization": [((4,), "float32")],
}


def names() -> list[str]:
    """Every layer class that `keras.layers` exports, once, but for those that are refused."""
    found: dict[type, str] = {}
    for name, kind in vars(layers).items():
        # Of several names for one class, its own.
        if isinstance(kind, type) and issubclass(kind, keras.Layer) and (kind not in found or name == kind.__name__):
            found[kind] = name
    return sorted(set(found.values()) - REFUSED.keys())


def build(name: str) -> keras.Model:
    """A model around the layer of this name."""
    if name in _SPECIAL:
        return _SPECIAL[name]()
    layer = getattr(layers, name)(**ARGUMENTS.get(name, {}))
    inputs = [keras.Input(shape, dtype=dtype) for shape, dtype in _inputs(name)]
    if len(inputs) == 1:
        return keras.Model(inputs[0], layer(inputs[0]))
    together = name in ("GroupQueryAttention", "MultiHeadAttention")
    return keras.Model(inputs, layer(*inputs) if together else layer(inputs))


def _inputs(name: str) -> list[tuple[tuple[int | None, ...], str]]:
    for named, inputs in _INPUTS.items():
        if name in named.split():
            return inputs
    if match := re.search(r"ConvLSTM(\d)D", name):
        return [((2, *[4] * int(match[1]), 2), "float32")]
    if match := re.search(r"([123])D", name):
        return [((*[8] * int(match[1]), 3), "float32")]
    return [((8, 8, 3) if _IMAGE.match(name) else (6, 4), "float32")]


def _recurrent(*cells: keras.Layer) -> keras.Model:
    inputs = keras.Input((None, 4))
    return keras.Model(inputs, layers.RNN(list(cells) if len(cells) > 1 else cells[0])(inputs))


def _around(layer: keras.Layer, shape: tuple[int | None, ...]) -> keras.Model:
    inputs = keras.Input(shape)
    return keras.Model(inputs, layer(inputs))


def _mixing(layer: keras.Layer) -> keras.Model:
    inputs = {"images": keras.Input((8, 8, 3), name="images"), "labels": keras.Input((2,), name="labels")}
    return keras.Model(inputs, layer(inputs))


def _boxes() -> keras.Model:
    boxes = {"boxes": keras.Input((5, 4), name="boxes"), "labels": keras.Input((5,), name="labels")}
    images = keras.Input((8, 8, 3), name="images")
    done = layers.MaxNumBoundingBoxes(3, bounding_box_format="xyxy")({"images": images, "bounding_boxes": boxes})
    return keras.Model([images, boxes], done)


_SPECIAL: dict[str, Callable[[], keras.Model]] = {
    "InputLayer": lambda: keras.Sequential([layers.InputLayer((4,), name="x"), layers.Dense(2)]),
    "Bidirectional": lambda: _around(layers.Bidirectional(layers.GRU(2, return_sequences=True)), (None, 4)),
    "CutMix": lambda: _mixing(layers.CutMix()),
    "MixUp": lambda: _mixing(layers.MixUp()),
    "MaxNumBoundingBoxes": _boxes,
    "RNN": lambda: _recurrent(layers.LSTMCell(2), layers.SimpleRNNCell(3)),
    "StackedRNNCells": lambda: _recurrent(layers.StackedRNNCells([layers.GRUCell(2), layers.GRUCell(3)])),
    "LSTMCell": lambda: _recurrent(layers.LSTMCell(2)),
    "GRUCell": lambda: _recurrent(layers.GRUCell(2)),
    "SimpleRNNCell": lambda: _recurrent(layers.SimpleRNNCell(2)),
    "SpectralNormalization": lambda: _around(layers.SpectralNormalization(layers.Conv1D(2, 3)), (6, 4)),
    "TimeDistributed": lambda: _around(layers.TimeDistributed(layers.Dense(2)), (6, 4)),
    # With the dtype of its input it returns the input itself, which Keras takes for a cycle.
    "Equalization": lambda: keras.Sequential([keras.Input((8, 8, 3)), layers.Equalization(dtype="uint8")]),
}  # fmt: skip
