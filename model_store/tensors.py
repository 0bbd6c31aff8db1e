"""Element types of tensors by name: numpy's names (as in signatures), TensorFlow's and the Open Inference Protocol's.

Sources: tensorflow/core/framework/types.proto; specification/protocol/inference_rest.md of the Open Inference Protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

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


def element_type(dtype: str) -> ElementType:
    """The type that a signature names, such as `float32` or `string`; raises DtypeUnknown."""
    found = _BY_NAME.get(dtype)
    if found is None:
        raise DtypeUnknown(f"unknown element type {dtype[:64]!r}; known are {', '.join(_BY_NAME)}")
    return found
