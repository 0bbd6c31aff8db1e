"""Answers of predictions as arrays: one for a model with one output, else a dict of them by name."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
import numpy as np

from sluice.answers import Json, Unreachable
from sluice.binary_tensors import HEAD_LENGTH, decode, texts
from sluice.calls import Prediction
from sluice.described_model import STRING, ModelDescription, Tensor, numpy_dtype

VERSION = "Sluice-Model-Version"


@dataclass(frozen=True, slots=True)
class Answer:
    """A prediction's answer: `head_bytes` of it are JSON, where tensors follow as bytes; else all is."""

    content: bytes
    head_bytes: int | None
    version: int | None


def answer_of(response: httpx.Response) -> Answer:
    """What a prediction or a job's result was answered."""
    head, version = (response.headers.get(name, "") for name in (HEAD_LENGTH, VERSION))
    return Answer(
        response.content, int(head) if head.isdecimal() else None, int(version) if version.isdecimal() else None
    )


def read_outputs(answer: Answer, description: ModelDescription | None) -> dict[str, Tensor]:
    """The outputs by name in an answer of any protocol; "" is the name of an only one that nobody described.

    Raises Unreachable where it is none.
    """
    content = answer.content
    if answer.head_bytes is not None:
        return decode(content, answer.head_bytes)
    try:
        document = json.loads(content)
        if "predictions" in document:
            return _of_rows(document["predictions"], description)
        found = document["outputs"]
        if isinstance(found, list) and found and isinstance(found[0], dict) and "datatype" in found[0]:
            return decode(content, None)
        return _of_columns(found, description)
    except (KeyError, TypeError, ValueError) as error:
        raise Unreachable(f"the answer is not one of a prediction: {error}") from error


def chosen(outputs: Mapping[str, Tensor], wanted: str | Sequence[str] | None) -> Prediction:
    """The outputs that a caller wants: one by its name alone, several as a dict; None is all that there are.

    Raises ValueError for one that the model does not give.
    """
    if wanted is None:
        return next(iter(outputs.values())) if len(outputs) == 1 else dict(outputs)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    missing = [name for name in names if name not in outputs]
    if missing:
        raise ValueError(f"the model gives {', '.join(outputs)}, not {', '.join(missing)}")
    return outputs[wanted] if isinstance(wanted, str) else {name: outputs[name] for name in names}


def _of_rows(rows: Json, description: ModelDescription | None) -> dict[str, Tensor]:
    names = _names(rows[0] if rows else None, description)
    if names is None:
        return {_only(description): _array(rows, _only(description), description)}
    return {name: _array([row[name] for row in rows], name, description) for name in names}


def _of_columns(columns: Json, description: ModelDescription | None) -> dict[str, Tensor]:
    names = _names(columns, description)
    if names is None:
        return {_only(description): _array(columns, _only(description), description)}
    return {name: _array(columns[name], name, description) for name in names}


def _names(first: Json, description: ModelDescription | None) -> list[str] | None:
    """The names of several outputs; None of an only one, whose name is dropped."""
    if description is not None:
        return None if len(description.outputs) == 1 else list(description.outputs)
    return list(first) if isinstance(first, dict) and set(first) != {"b64"} else None


def _only(description: ModelDescription | None) -> str:
    return "" if description is None else next(iter(description.outputs))


def _array(values: Json, name: str, description: ModelDescription | None) -> Tensor:
    if description is not None and description.outputs[name].dtype != STRING:
        return np.array(values, numpy_dtype(description.outputs[name].dtype))
    found = np.array(_plain(values), object)
    if description is None and not any(isinstance(element, str | bytes) for element in found.flat):
        return np.array(values)
    return texts(found.reshape(-1).tolist(), name).reshape(found.shape)


def _plain(value: Json) -> Json:
    if isinstance(value, list):
        return [_plain(element) for element in value]
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value
