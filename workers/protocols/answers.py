"""Answers read back: the outputs in the body of a 200 answer of either dialect, so that two answers can be compared."""

from __future__ import annotations

import json

import numpy as np
import orjson

from model_store.signature import Tensor, Tensors
from model_store.tensors import ELEMENT_TYPES
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.byte_strings import read_strings

_NUMBER = (bool, int, float)


class AnswerUnreadable(Exception):
    """The body is not what a worker answers with."""


def outputs_of(body: Body) -> Tensors:
    """The outputs by their names, '' for a single one whose name the dialect drops; raises AnswerUnreadable."""
    try:
        if body.dialect == Dialect.OPEN_INFERENCE:
            return _open_inference(body)
        return _tensorflow_serving(_document(body.data))
    except (ValueError, KeyError, TypeError) as error:
        raise AnswerUnreadable(str(error)) from error


def _document(text: bytes) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        # Bare NaN and infinities, which TensorFlow Serving writes, are read by the slower parser only.
        return json.loads(text)


def _tensorflow_serving(document: object) -> Tensors:
    if not isinstance(document, dict):
        raise ValueError("no object")  # noqa: TRY004 - a wrong answer, not a wrong call
    if "predictions" in document:
        rows = document["predictions"]
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            return {name: _tensor([row[name] for row in rows]) for name in rows[0]}
        if isinstance(rows, dict):  # several outputs in MLflow's scoring protocol
            return {name: _tensor(value) for name, value in rows.items()}
        return {"": _tensor(rows)}
    if "results" in document:
        return _results(document["results"])
    outputs = document["outputs"]
    if isinstance(outputs, dict):
        return {name: _tensor(value) for name, value in outputs.items()}
    return {"": _tensor(outputs)}


def _results(results: list[object]) -> Tensors:
    """Of `:classify` labels and scores, of `:regress` values."""
    if not all(isinstance(one, list) for one in results):
        return {"": _tensor(results)}
    classes: list[list[list[object]]] = results  # type: ignore[assignment]  # what else it may be fails below
    return {
        "classes": _tensor([[label for label, _ in row] for row in classes]),
        "scores": _tensor([[score for _, score in row] for row in classes]),
    }


def _open_inference(body: Body) -> Tensors:
    data = memoryview(body.data)
    head = len(data) if body.head == TEXT else body.head
    document = _document(bytes(data[:head]))
    if not isinstance(document, dict):
        raise ValueError("no object")  # noqa: TRY004 - a wrong answer, not a wrong call
    found: dict[str, Tensor] = {}
    for output in document["outputs"]:
        shape, size = tuple(output["shape"]), output.get("parameters", {}).get("binary_data_size")
        if size is None:
            found[output["name"]] = _tensor(output["data"]).reshape(shape)
        else:
            found[output["name"]] = _from_bytes(data[head : head + size], shape, output["datatype"])
            head += size
    return found


def _from_bytes(data: memoryview, shape: tuple[int, ...], datatype: str) -> Tensor:
    kind = next(kind for kind in ELEMENT_TYPES if kind.open_inference == datatype)
    if datatype == "BYTES":
        return read_strings(data, int(np.prod(shape)), "answer").reshape(shape)
    return np.frombuffer(data, np.dtype(kind.name).newbyteorder("<")).reshape(shape)


def _tensor(value: object) -> Tensor:
    """Numbers as they are; whatever else there may be as objects, which can be compared for equality."""
    try:
        found = np.asarray(value, object)
    except ValueError:
        found = np.empty((), object)
        found[()] = value
        return found
    # Left to itself, NumPy gives each text the room of the longest: 200 KB of an answer can ask for 10 GB.
    return np.asarray(value) if all(isinstance(one, _NUMBER) for one in found.flat) else found
