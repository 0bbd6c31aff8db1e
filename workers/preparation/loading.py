"""Loading the canonical archive with Keras, its signature and its own outputs; runs in a runner only."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from model_store.signature import STRING, Tensor, Tensors, TensorSpec
from workers.preparation.canonical import CANONICAL
from workers.preparation.findings import keras_findings, refused

if TYPE_CHECKING:
    import keras

HELD = "keras_model"
OUTPUTS_LIMIT = 1000
WORDS_LIMIT = 1000
_HALF = ("float16", "bfloat16")


def load(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Loads canonical.keras, uncompiled and in safe mode.

    Answers `inputs` and `outputs` (name, dtype, shape), `ranges` (what sensible values of each input are, see
    workers/preparation/samples.py), `half` (whether it computes in 16 bits), `parameters` and `layers`.
    """
    import keras

    with keras_findings():
        model = keras.saving.load_model(CANONICAL, compile=False, safe_mode=True)
    held[HELD] = model
    if not getattr(model, "inputs", None):
        raise refused("signature", "the model has no input shape: begin it with keras.Input(…)")
    layers = model._flatten_layers(include_self=False)
    answer = {
        "inputs": [_described(name, tensor) for name, tensor in zip(input_names(model), model.inputs, strict=True)],
        "outputs": [_described(name, tensor) for name, tensor in zip(output_names(model), model.outputs, strict=True)],
        "ranges": [_range(model, tensor) for tensor in model.inputs],
        "half": any(getattr(layer, "compute_dtype", None) in _HALF for layer in layers),
        "parameters": model.count_params(),
        "layers": len(model.layers),
    }
    return answer, {}


def predict(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """The Keras model's own outputs, by the names of the signature."""
    import tensorflow

    model = held[HELD]
    flat = [tensorflow.constant(tensors[name]) for name in input_names(model)]
    outputs = call(model, flat)
    return {}, {name: array(output.numpy()) for name, output in zip(output_names(model), outputs, strict=True)}


def call(model: keras.Model, flat: list[Any]) -> list[Any]:
    """Runs the model for inference on its inputs in their order; outputs likewise, bfloat16 as float32."""
    import keras
    import tensorflow

    cast = [
        tensorflow.cast(x, t.dtype) if t.dtype == "bfloat16" else x for x, t in zip(flat, model.inputs, strict=True)
    ]
    one = isinstance(model, keras.Sequential)
    outputs = model(cast[0] if one else keras.tree.pack_sequence_as(model.input, cast), training=False)
    return [
        tensorflow.cast(output, "float32") if output.dtype == tensorflow.bfloat16 else output
        for output in keras.tree.flatten(outputs)
    ]


def input_names(model: keras.Model) -> list[str]:
    """Names of the inputs in their order: those of the input layers, as far as TensorFlow's signatures take them."""
    return _distinct((tensor._keras_history.operation.name for tensor in model.inputs), "input")


def output_names(model: keras.Model) -> list[str]:
    """Keys of a dictionary of outputs, else `output_0`, `output_1`, … as Keras's own export names them."""
    import keras

    count = len(model.outputs)
    if count > OUTPUTS_LIMIT:
        raise refused("signature", f"the model has {count} outputs; at most {OUTPUTS_LIMIT} are taken")
    structure = None if isinstance(model, keras.Sequential) else model.output
    if isinstance(structure, dict):
        paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
        if all(len(path) == 1 for path in paths):
            return _distinct((str(path[0]) for path in paths), "output")
    return [f"output_{position}" for position in range(count)]


def array(value: object) -> Tensor:
    """What `numpy()` of an eager tensor gives as an array; a single string comes as bare `bytes`."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def _distinct(names: Iterable[str], kind: str) -> list[str]:
    """Names that begin with a letter and consist of letters, digits and '_', no two alike."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
        plain = plain if plain[:1].isalpha() else f"{kind}_{plain.lstrip('_')}"
        while plain in found:
            plain += "_"
        found.append(plain)
    return found


def _described(name: str, tensor: keras.KerasTensor) -> dict[str, Any]:
    if getattr(tensor, "sparse", False) or getattr(tensor, "ragged", False):
        raise refused("signature", "sparse and ragged tensors cannot be served", name)
    if not tensor.shape:
        raise refused("signature", "a tensor without a batch dimension cannot be served", name)
    dtype = "float32" if tensor.dtype == "bfloat16" else tensor.dtype
    if dtype.startswith("complex"):
        raise refused("signature", "complex numbers cannot be served", name)
    spec = TensorSpec(name, STRING if dtype == "string" else np.dtype(dtype).name, tuple(tensor.shape))
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape)}


def _range(model: keras.Model, tensor: keras.KerasTensor) -> dict[str, Any]:
    """What the layers that read an input take: `below` a number, one of `choices`, or texts made of `words`."""
    if tensor.dtype.startswith("float") or tensor.dtype in ("bool", "bfloat16"):
        return {}
    layers = model._flatten_layers(include_self=False)
    readers = [layer for layer in layers if _reads(layer, tensor)]
    # The reader may sit in a nested model, whose tensors are others: then all layers tell what is safe.
    for group in (readers, layers):
        if tensor.dtype == "string":
            found = [_texts(layer) for layer in group]
        else:
            bounds = [bound for layer in group if (bound := _bound(layer))]
            found = [_integers(layer) for layer in group] + ([{"below": min(bounds)}] if bounds else [])
        if known := [row for row in found if row]:
            return known[0]
    return {}


def _texts(layer: keras.Layer) -> dict[str, Any]:
    import keras

    if isinstance(layer, keras.layers.TextVectorization):
        return {"words": _terms(layer)}
    return {"choices": _terms(layer)} if isinstance(layer, keras.layers.StringLookup) and not layer.invert else {}


def _integers(layer: keras.Layer) -> dict[str, Any]:
    import keras

    if isinstance(layer, (keras.layers.StringLookup, keras.layers.IntegerLookup)) and layer.invert:
        return {"below": layer.vocabulary_size()}
    return {"choices": _terms(layer)} if isinstance(layer, keras.layers.IntegerLookup) else {}


def _reads(layer: keras.Layer, tensor: keras.KerasTensor) -> bool:
    return any(tensor is given for node in layer._inbound_nodes for given in node.input_tensors)


def _bound(layer: keras.Layer) -> int | None:
    for field in ("input_dim", "num_tokens"):
        if isinstance(bound := getattr(layer, field, None), int):
            return bound
    return None


def _terms(layer: keras.Layer) -> list[Any]:
    special = ("", "[UNK]")
    terms = [term.item() if isinstance(term, np.generic) else term for term in layer.get_vocabulary()[:WORDS_LIMIT]]
    return [term for term in terms if term not in special]
