"""Tensors as JSON Schema (draft 2020-12): what a version's own inputs and outputs look like in a body."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from model_store.signature import STRING, TensorSpec
from model_store.tensors import element_type

Json = dict[str, Any]

B64: Json = {
    "type": "object",
    "required": ["b64"],
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "additionalProperties": False,
}


NUMBER: Json = {"type": "number"}
# Readers differ on what a bare token is of JSON's types, so that no type may be named.
ANSWERED_NUMBER: Json = {
    "description": "A number; NaN and infinities are bare tokens.",
    "not": {"type": ["array", "boolean", "object", "string"]},
}


def value_schema(spec: TensorSpec) -> Json:
    """One value of the tensor."""
    if spec.dtype == STRING:
        return {"anyOf": [{"type": "string"}, B64]}
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "b":
        return {"type": "boolean"}
    if dtype.kind == "f":
        return NUMBER
    info = np.iinfo(dtype)
    return {"type": "integer", "minimum": int(info.min), "maximum": int(info.max)}


def answered_value(spec: TensorSpec) -> Json:
    """One value of an output."""
    found = value_schema(spec)
    return ANSWERED_NUMBER if found == NUMBER else found


def scored_value(spec: TensorSpec) -> Json:
    """One value in a request to score, where MLflow takes null for NaN."""
    found = value_schema(spec)
    return {"type": ["number", "null"]} if found == NUMBER else found


def nested_schema(shape: Sequence[int | None], value: Json, most: int | None = None) -> Json:
    """Nested lists of this shape; `most` bounds the first dimension where it is free."""
    if not shape:
        return value
    size, *inner = shape
    least = 1 if size is None else size
    bound = most if size is None else size
    found: Json = {"type": "array", "minItems": least, "items": nested_schema(inner, value)}
    return found if bound is None else found | {"maxItems": bound}


def described(spec: TensorSpec) -> str:
    """Name, type and shape in words, as `image: float32 [-1, 28, 28]`."""
    shape = ", ".join("-1" if size is None else str(size) for size in spec.shape)
    return f"{spec.name}: {spec.dtype} [{shape}]"


def infer_tensor(spec: TensorSpec) -> Json:
    """One input in a request of the Open Inference Protocol: its data flat or nested, or in bytes behind the JSON."""
    sizes: list[Json] = [
        {"type": "integer", "minimum": 1} if size is None else {"type": "integer", "const": size} for size in spec.shape
    ]
    shape: Json = {"type": "array", "minItems": len(sizes), "maxItems": len(sizes)}
    return {
        "type": "object",
        "description": described(spec),
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"const": spec.name},
            "shape": shape | ({"prefixItems": sizes} if sizes else {}),
            "datatype": {"const": element_type(spec.dtype).open_inference},
            "data": {"type": "array", "minItems": 1},
            "parameters": {
                "type": ["object", "null"],
                "properties": {"binary_data_size": {"type": ["integer", "null"], "minimum": 0}},
            },
        },
        "anyOf": [{"required": ["data"]}, {"required": ["parameters"]}],
    }


def answered_tensor(spec: TensorSpec) -> Json:
    """One output in an answer of that protocol."""
    sizes = {"type": "array", "items": {"type": "integer", "minimum": 0}}
    return {
        "type": "object",
        "description": described(spec),
        "required": ["name", "shape", "datatype"],
        "properties": {"name": {"const": spec.name}, "shape": sizes, "datatype": {"type": "string"}},
    }
