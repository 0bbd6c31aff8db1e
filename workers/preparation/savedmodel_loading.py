"""Loading a checked SavedModel, its signature and its conversion to ONNX; runs in a runner only."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from model_store.signature import STRING, Tensors
from workers.errors import UploadRefused
from workers.preparation.convert import write_onnx
from workers.preparation.findings import keras_findings, refused, shown
from workers.runner import archive, savedmodel
from workers.runner.savedmodel import SIGNATURE, Loaded

if TYPE_CHECKING:
    import tensorflow

KNOWN, FOLDER = "known.tar", "known"
HELD = "savedmodel_known"
_DIGITS = re.compile(r"\d+")
_FLOATS = ("float16", "float32", "float64")


def load_known(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Loads known.tar. Answers `inputs` and `outputs` (name, dtype, shape), and of what is `stored` beside them either
    the same or the `reason` why it cannot be served, as `further`.

    Raises UploadRefused: load_failed, signature.
    """
    import tensorflow

    packed = Path(KNOWN)
    archive.unpack(packed, Path(FOLDER))
    packed.unlink()
    with keras_findings("load_failed", "TensorFlow cannot load the SavedModel"):
        model = tensorflow.saved_model.load(FOLDER)
        function = model.signatures[SIGNATURE]
    answer = _signature(function)
    names = ([(row["name"], row["name"]) for row in answer[part]] for part in ("inputs", "outputs"))
    held[HELD] = Loaded(model, function, *names)
    return {**answer, "further": [_further(model.signatures[name]) for name in arguments["stored"]]}, {}


def predict_known(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """The SavedModel's own outputs; raises PredictionFailed."""
    return savedmodel.predict({savedmodel.HELD: {"": held[HELD]}}, arguments, tensors)


def convert_known(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Writes model.onnx. Answers `size_bytes`, or `reason` where ONNX cannot express the model."""
    import tensorflow

    loaded: Loaded = held[HELD]
    specs = loaded.function.structured_input_signature[1]
    # The converter takes names as TensorFlow's graphs do; inputs of other names are told by their places.
    plain = all(name.isidentifier() for name, _ in loaded.inputs)
    given = [name if plain else f"input_{place}" for place, (name, _) in enumerate(loaded.inputs)]
    wanted = [
        tensorflow.TensorSpec(specs[name].shape, specs[name].dtype, name=own)
        for own, (name, _) in zip(given, loaded.inputs, strict=True)
    ]
    return write_onnx(tensorflow.function(_flat(loaded)), wanted, given), {}


def _flat(loaded: Loaded) -> Any:  # noqa: ANN401 - a function of any number of tensors
    def serve(*flat: tensorflow.Tensor) -> dict[str, tensorflow.Tensor]:
        found = loaded.function(**{name: value for (name, _), value in zip(loaded.inputs, flat, strict=True)})
        return {name: found[name] for name, _ in loaded.outputs}

    return serve


def _further(function: Any) -> dict[str, Any]:  # noqa: ANN401 - a function of TensorFlow's
    try:
        return _signature(function)
    except UploadRefused as error:
        return {"reason": error.message}


def _signature(function: Any) -> dict[str, list[dict[str, Any]]]:  # noqa: ANN401 - a function of TensorFlow's
    inputs, outputs = _in_order(function.structured_input_signature[1]), _in_order(function.structured_outputs)
    found = {
        part: [_described(*pair) for pair in specs.items()]
        for part, specs in (("inputs", inputs), ("outputs", outputs))
    }
    for part, rows in found.items():
        if not rows:
            raise refused("signature", f"the SavedModel's signature has no {part}")
    return found


def _in_order(specs: dict[str, Any]) -> dict[str, Any]:
    """By name, and numbers in names by size: the file has no order of its own, and each load would find another one."""
    return {name: specs[name] for name in sorted(specs, key=lambda name: (_DIGITS.sub("", name), len(name), name))}


def _described(name: str, spec: tensorflow.TensorSpec) -> dict[str, Any]:
    import tensorflow

    if not isinstance(spec, (tensorflow.TensorSpec, tensorflow.Tensor)) or spec.shape.rank is None:
        raise refused("signature", "only dense tensors of known rank can be served", shown(name))
    if not spec.shape.rank:
        raise refused("signature", "a tensor without a batch dimension cannot be served", shown(name))
    kind = spec.dtype
    if kind != tensorflow.string and not (kind.is_bool or kind.is_integer or kind in _FLOATS):
        raise refused("signature", f"tensors of {kind.name} cannot be served", shown(name))
    dtype = STRING if kind == tensorflow.string else np.dtype(kind.as_numpy_dtype).name
    return {"name": name, "dtype": dtype, "shape": spec.shape.as_list()}
