"""Commands of the child: load a SavedModel and predict with its signature `serving_default`, or another by its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_store.signature import Tensor, Tensors
from workers.errors import PredictionFailed, first_line
from workers.runner import archive

SIGNATURE = "serving_default"
FOLDER = "savedmodel"
# By the names that callers give the signatures; the default has none.
HELD = "savedmodel"
# Lines of TensorFlow's errors that say where in its graph something failed rather than what.
SURROUNDINGS = re.compile(r"Graph execution error|Detected at node|<stack traces|\s*File |\[\[|\d+ root error")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded SavedModel; `inputs` and `outputs` are pairs of the caller's name and the SavedModel's."""

    model: Any  # kept because its variables go with it
    function: Any
    inputs: list[tuple[str, str]]
    outputs: list[tuple[str, str]]


def load(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Unpack and load `archive`, a file in the current folder; `inputs` and `outputs` name the caller's tensors.

    So they do in each of `further`, which lists more signatures, each `name` with what it is `stored` as.
    """
    import tensorflow

    packed = Path(arguments["archive"])
    archive.unpack(packed, Path(FOLDER))
    packed.unlink()
    model = tensorflow.saved_model.load(FOLDER)
    found = {"": _of_signature(model, SIGNATURE, arguments)}
    for further in arguments.get("further", ()):
        found[further["name"]] = _of_signature(model, further["stored"], further)
    held[HELD] = found
    return {}, {}


def stored_name(name: str, default: str) -> str:
    """What a signature is called in a checked SavedModel: the default goes by `serving_default`, and one that was
    called that by the default's name."""
    return {default: SIGNATURE, SIGNATURE: default}.get(name, name)


def _of_signature(model: Any, stored: str, names: Mapping[str, Any]) -> Loaded:  # noqa: ANN401 - TensorFlow has no type for it
    if stored not in model.signatures:
        raise PredictionFailed(f"the SavedModel has no signature {stored}")
    function = model.signatures[stored]
    inputs = match_names(names["inputs"], function.structured_input_signature[1])
    outputs = match_names(names["outputs"], function.structured_outputs)
    return Loaded(model, function, inputs, outputs)


def predict(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Run the loaded SavedModel on tensors by the caller's names; outputs likewise, in the caller's order.

    `signature` names one of the further ones.
    """
    import tensorflow

    loaded: Loaded = held[HELD][arguments.get("signature", "")]
    specs = loaded.function.structured_input_signature[1]
    try:
        feed = {theirs: tensorflow.constant(tensors[ours], dtype=specs[theirs].dtype) for ours, theirs in loaded.inputs}
        values = loaded.function(**feed)
    except tensorflow.errors.ResourceExhaustedError:
        raise
    except tensorflow.errors.OpError as error:
        raise PredictionFailed(f"the model failed: {_reason(error.message)}") from error
    return {}, {ours: _array(values[theirs].numpy()) for ours, theirs in loaded.outputs}


def match_names(wanted: list[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of the caller's name and the SavedModel's, in the caller's order; PredictionFailed where in doubt.

    A name that the SavedModel does not know is allowed for a single tensor, and for outputs that are called
    `output_<position>` there, as Keras exports them. Keras sorts inputs by name: there a position means nothing.
    """
    names = list(known)
    if set(wanted) == set(names):
        return [(name, name) for name in wanted]
    numbered = [f"output_{position}" for position in range(len(wanted))]
    if len(wanted) == len(names) == 1 or set(numbered) == set(names):
        return list(zip(wanted, names if len(names) == 1 else numbered, strict=True))
    raise PredictionFailed("the SavedModel has other inputs or outputs than its signature")


def _array(value: object) -> Tensor:
    """What `EagerTensor.numpy()` gives as an array; a single string comes as bare `bytes`."""
    return np.array(value, object) if isinstance(value, bytes) else np.asarray(value)


def _reason(message: str) -> str:
    lines = [line for line in message.splitlines() if line.strip() and not SURROUNDINGS.match(line)]
    return first_line(lines[0] if lines else message)
