"""Answers of the Open Inference Protocol: JSON with flat data, or JSON in front of tensors as bytes.

All but the data of an answer depends on what was asked for and on shapes only, so it is written once and remembered.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from model_store.signature import STRING, Tensor, Tensors, TensorSpec
from model_store.tensors import element_type
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.byte_strings import write_strings
from workers.protocols.contract import Contract
from workers.protocols.open_inference_schedule import AT_ANY_TIME, Schedule
from workers.protocols.tensor_text import tensor_text
from workers.protocols.top_classes import Ranking

# An output's shape and, where it follows the JSON as bytes, how many they are.
Layout = tuple[tuple[tuple[int, ...], int | None], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """What an answer holds: outputs in the order in which they were asked for, and which of them as bytes.

    Of those in `ranking` it holds the best classes, as strings. `schedule` says by when it is wanted.
    """

    model: str
    version: int
    outputs: tuple[tuple[TensorSpec, bool], ...]
    ranking: Ranking = ()
    schedule: Schedule = AT_ANY_TIME
    # Of the version's signatures, where it is not the default.
    named: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """One output as it is asked for: by its place in the signature, whether as bytes, and how many classes of it."""

    place: int
    binary: bool
    classes: int | None = None


@lru_cache(maxsize=1024)
def form_of(contract: Contract, asked: tuple[Asked, ...], schedule: Schedule = AT_ANY_TIME) -> Form:
    """The one form, as an object, of these outputs."""
    specs = contract.signature.outputs
    outputs = tuple((_answered(specs[one.place], one), one.binary) for one in asked)
    ranking = tuple((specs[one.place].name, one.classes) for one in asked if one.classes is not None)
    return Form(contract.model, contract.version, outputs, ranking, schedule, contract.named)


def _answered(spec: TensorSpec, asked: Asked) -> TensorSpec:
    return spec if asked.classes is None else TensorSpec(spec.name, STRING, (spec.shape[0], None))


def opening_of(request_id: str | None) -> bytes:
    """What an answer begins with: the caller's id, if there was one, comes back."""
    return b"{" if not request_id else b'{"id":%s,' % json.dumps(request_id).encode()


def write_answer(form: Form, opening: bytes, outputs: Tensors) -> Body:
    """The body of a 200 answer; raises PredictionFailed for an output that JSON has no form for."""
    layout: list[tuple[tuple[int, ...], int | None]] = []
    texts: list[bytes | None] = []
    tensors: list[bytes | memoryview] = []
    for spec, binary in form.outputs:
        tensor = outputs[spec.name]
        if binary:
            data, size = as_bytes(tensor, spec)
            tensors.append(data)
            layout.append((tensor.shape, size))
            texts.append(None)
        else:
            layout.append((tensor.shape, None))
            texts.append(tensor_text(tensor.reshape(-1), as_base64=False))
    head = [opening, *woven(pieces(form, tuple(layout)), texts)]
    if not tensors:
        return Body(b"".join(head), Dialect.OPEN_INFERENCE, TEXT)
    return Body(b"".join([*head, *tensors]), Dialect.OPEN_INFERENCE, sum(map(len, head)))


def as_bytes(tensor: Tensor, spec: TensorSpec) -> tuple[bytes | memoryview, int]:
    """The bytes of a tensor in row-major order, little-endian, and their number; no copy where none is needed."""
    if spec.dtype == STRING:
        text = write_strings(tensor)
        return text, len(text)
    plain = np.asarray(tensor, spec.numpy_dtype().newbyteorder("<"), order="C")
    return plain.data, plain.nbytes


def woven(fixed: tuple[bytes, ...], texts: Iterable[bytes | None]) -> list[bytes]:
    """The remembered pieces with the outputs' data between them."""
    found = []
    for piece, text in zip(fixed, texts, strict=False):
        found.append(piece)
        if text is not None:
            found.append(text)
    found.append(fixed[-1])
    return found


@lru_cache(maxsize=1024)
def pieces(form: Form, layout: Layout) -> tuple[bytes, ...]:
    """The answer's JSON cut where the data of each output belongs: one piece more than there are outputs."""
    found = []
    before = b'"model_name":%s,"model_version":"%d","outputs":[' % (json.dumps(form.model).encode(), form.version)
    for (spec, _), (shape, size) in zip(form.outputs, layout, strict=True):
        described: dict[str, object] = {
            "name": spec.name,
            "datatype": element_type(spec.dtype).open_inference,
            "shape": list(shape),
        }
        if size is not None:
            described["parameters"] = {"binary_data_size": size}
        text = json.dumps(described, separators=(",", ":")).encode()[:-1]
        found.append(before + text + (b',"data":' if size is None else b""))
        before = b"},"
    return (*found, b"}]}")
