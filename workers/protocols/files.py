"""Files as the whole body of a request: one as it is, or a form (RFC 7578) with a part for each.

The gateway looks into none of them. It writes a head of JSON, `[[input or null, bytes], …]`, and the files behind it
one after the other; here they become instances, several of an input in their order. Answers are TensorFlow Serving's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import orjson

from model_store.signature import STRING, Tensor, Tensors, TensorSpec
from workers.protocols.body import Body, Dialect
from workers.protocols.contract import Contract, common_count, instance_count
from workers.protocols.errors import invalid, shown_name
from workers.protocols.file_beginnings import beginning_of
from workers.protocols.file_inputs import as_text, places_of, takes_files, tensor_of_files
from workers.protocols.json_tensors import Place, expectation, tensor_of
from workers.protocols.json_text import parse_json
from workers.protocols.tensorflow_serving import format_predict

Sent = tuple[str | None, bytes]
"""A file, and the input that it is said to be for: None where it came alone."""


@dataclass(frozen=True, slots=True)
class FilesRequest:
    """A request that fits the signature."""

    tensors: Tensors
    instances: int

    def format(self, outputs: Tensors, contract: Contract) -> Body:
        return Body(format_predict(outputs, contract.signature, row_form=True), Dialect.TENSORFLOW_SERVING)


def body_of(files: Sequence[Sent]) -> Body:
    """The files as `parse` takes them."""
    head = orjson.dumps([[name, len(data)] for name, data in files])
    return Body(b"".join((head, *(data for _, data in files))), Dialect.FILES, len(head))


def parse(body: Body, contract: Contract) -> FilesRequest:
    """The request in a body of a caller of one version; raises InputInvalid."""
    given = _by_input(_files_in(body), contract)
    tensors = {spec.name: _tensor(spec, given[spec.name], contract) for spec in contract.signature.inputs}
    counts = {spec.name: len(tensors[spec.name]) for spec in contract.signature.inputs if spec.batched}
    return FilesRequest(tensors, common_count(counts))


def _files_in(body: Body) -> list[Sent]:
    found: list[Sent] = []
    at = body.head
    for name, size in json.loads(body.data[:at]):
        found.append((name, body.data[at : at + size]))
        at += size
    return found


def _by_input(files: Sequence[Sent], contract: Contract) -> dict[str, list[bytes]]:
    """The files of each input in their order; one that came alone is for the only input that takes any."""
    specs = contract.signature.inputs
    expected = ", ".join(shown_name(spec.name) for spec in specs)
    found: dict[str, list[bytes]] = {}
    for name, data in files:
        if name is None and len(specs) > 1:
            raise invalid(f"the model has {len(specs)} inputs, {expected}: send a form with a part for each")
        found.setdefault(specs[0].name if name is None else name, []).append(data)
    if found.keys() != {spec.name for spec in specs}:
        named = ", ".join(shown_name(name) for name in found) or "none"
        raise invalid(f"a form has a part, or several, named after each input: expected {expected}, but got {named}")
    return found


def _tensor(spec: TensorSpec, files: Sequence[bytes], contract: Contract) -> Tensor:
    place = places_of(spec)
    if spec.dtype == STRING:
        return _texts(spec, [_text(contract, spec, data, place(number)) for number, data in enumerate(files)], contract)
    if takes_files(contract, spec) or not _is_json(files[0]):
        return tensor_of_files(contract, spec, files, place)
    # What is neither a file nor a text stands beside one as it would in JSON: `-F age=42`.
    instance_count(spec, len(files), contract.max_instances)
    values = [parse_json(data) for data in files]
    return tensor_of(values if spec.batched else values[0], spec, Place(shown_name(spec.name)))


def _is_json(data: bytes) -> bool:
    return beginning_of(data) is None and data.lstrip()[:1] in _JSON_STARTS


_JSON_STARTS = frozenset(bytes([byte]) for byte in b"-0123456789[tfN")


def _text(contract: Contract, spec: TensorSpec, data: bytes, place: str) -> bytes:
    try:
        return as_text(contract, spec, data.decode("utf-8-sig")).encode()
    except UnicodeDecodeError:
        raise invalid(f"{place}: the text is not UTF-8; {expectation(spec)}") from None


def _texts(spec: TensorSpec, texts: Sequence[bytes], contract: Contract) -> Tensor:
    count = instance_count(spec, len(texts), contract.max_instances)
    sizes = [1 if size is None else size for size in spec.shape[1:] if spec.batched]
    if not spec.batched or any(size != 1 for size in sizes):
        raise invalid(f"{shown_name(spec.name)}[0]: a text is one string; {expectation(spec)}")
    found = np.empty(count, object)
    found[:] = texts
    return found.reshape(count, *sizes)
