"""What a model takes and gives, as its gateway describes it: names, element types and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from sluice.answers import Json

Tensor: TypeAlias = npt.NDArray[Any]

STRING = "string"
# NumPy's names by TensorFlow's (tensorflow/core/framework/types.proto) and by the Open Inference Protocol's.
_OF_TENSORFLOW = {
    "DT_BOOL": "bool", "DT_UINT8": "uint8", "DT_UINT16": "uint16", "DT_UINT32": "uint32", "DT_UINT64": "uint64",
    "DT_INT8": "int8", "DT_INT16": "int16", "DT_INT32": "int32", "DT_INT64": "int64", "DT_HALF": "float16",
    "DT_FLOAT": "float32", "DT_DOUBLE": "float64", "DT_STRING": STRING,
}  # fmt: skip
DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8",
    "int16": "INT16", "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64",
    STRING: "BYTES",
}  # fmt: skip
DTYPES = {datatype: name for name, datatype in DATATYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorDescription:
    """One input or output: `dtype` is NumPy's name or `string`; None in `shape` is a dimension of any size."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class ModelDescription:
    """A version's inputs and outputs by name."""

    name: str
    version: int
    inputs: Mapping[str, TensorDescription]
    outputs: Mapping[str, TensorDescription]


def read_description(document: Json) -> ModelDescription:
    """The description in an answer of TensorFlow Serving's `/metadata`."""
    spec = document["model_spec"]
    signatures = document["metadata"]["signature_def"]["signature_def"]
    # Others show the same tensors to other verbs.
    signature = signatures.get(spec.get("signature_name") or "serving_default") or next(iter(signatures.values()))
    inputs, outputs = (_tensors(signature[side]) for side in ("inputs", "outputs"))
    return ModelDescription(spec["name"], int(spec["version"]), inputs, outputs)


def _tensors(found: Mapping[str, Json]) -> dict[str, TensorDescription]:
    return {name: TensorDescription(name, _OF_TENSORFLOW[one["dtype"]], _shape(one)) for name, one in found.items()}


def _shape(tensor: Json) -> tuple[int | None, ...]:
    sizes = (int(dimension["size"]) for dimension in tensor["tensor_shape"].get("dim", ()))
    return tuple(None if size < 0 else size for size in sizes)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The dtype of arrays of such elements; texts are objects."""
    return np.dtype(object) if name == STRING else np.dtype(name)


def fitted(given: Tensor, dtype: str) -> Tensor:
    """The array with the elements that a model takes, where nothing but digits is lost; else as it was given.

    Numbers become floats, and floats other floats; integers become other integers where each of them fits. What is not
    changed is sent as it is: the gateway says best what it expected.
    """
    wanted = numpy_dtype(dtype)
    kinds = given.dtype.kind + wanted.kind
    if given.dtype == wanted or kinds[1] == "O" or kinds[0] not in "iuf":
        return given
    if kinds[1] == "f":
        # A float that is too large becomes infinite, as it does when it is read from JSON.
        with np.errstate(over="ignore"):
            return given.astype(wanted)
    if kinds[0] in "iu" and kinds[1] in "iu":
        limits = np.iinfo(wanted)
        if given.size == 0 or (int(given.min()) >= limits.min and int(given.max()) <= limits.max):
            return given.astype(wanted)
    return given
