"""Element types of tensors by name: numpy's names (as in signatures), TensorFlow's and the Open Inference Protocol's.

Sources: tensorflow/core/framework/types.proto; "Tensor Data Types" of the Open Inference Protocol's REST page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from model_store.signature import STRING


class DtypeUnknown(ValueError):
    """No tensor that Sluice serves has elements of this type."""


@dataclass(frozen=True, slots=True)
class ElementType:
    """One type of elements under its three names."""

    name: str
    tensorflow: str
    open_inference: str


ELEMENT_TYPES = (
    ElementType("bool", "DT_BOOL", "BOOL"),
    ElementType("uint8", "DT_UINT8", "UINT8"),
    ElementType("uint16", "DT_UINT16", "UINT16"),
    ElementType("uint32", "DT_UINT32", "UINT32"),
    ElementType("uint64", "DT_UINT64", "UINT64"),
    ElementType("int8", "DT_INT8", "INT8"),
    ElementType("int16", "DT_INT16", "INT16"),
    ElementType("int32", "DT_INT32", "INT32"),
    ElementType("int64", "DT_INT64", "INT64"),
    ElementType("float16", "DT_HALF", "FP16"),
    ElementType("float32", "DT_FLOAT", "FP32"),
    ElementType("float64", "DT_DOUBLE", "FP64"),
    ElementType(STRING, "DT_STRING", "BYTES"),
)

_BY_NAME: Mapping[str, ElementType] = {element.name: element for element in ELEMENT_TYPES}
_BY_TENSORFLOW: Mapping[str, ElementType] = {element.tensorflow: element for element in ELEMENT_TYPES}
_BY_OPEN_INFERENCE: Mapping[str, ElementType] = {element.open_inference: element for element in ELEMENT_TYPES}


def element_type(dtype: str) -> ElementType:
    """The type that a signature names, such as `float32` or `string`; raises DtypeUnknown."""
    return _find(_BY_NAME, dtype)


def from_tensorflow(dtype: str) -> ElementType:
    """The type that TensorFlow names, such as `DT_FLOAT`; raises DtypeUnknown."""
    return _find(_BY_TENSORFLOW, dtype)


def from_open_inference(dtype: str) -> ElementType:
    """The type that the Open Inference Protocol names, such as `FP32` or `BYTES`; raises DtypeUnknown."""
    return _find(_BY_OPEN_INFERENCE, dtype)


def from_numpy(dtype: np.dtype[np.generic]) -> ElementType:
    """The type of an array's elements; objects and numpy's own kinds of text are strings. Raises DtypeUnknown."""
    return _BY_NAME[STRING] if dtype.kind in "OSUT" else _find(_BY_NAME, dtype.name)


def _find(names: Mapping[str, ElementType], dtype: str) -> ElementType:
    found = names.get(dtype)
    if found is None:
        raise DtypeUnknown(f"unknown element type {dtype[:64]!r}; known are {', '.join(names)}")
    return found
