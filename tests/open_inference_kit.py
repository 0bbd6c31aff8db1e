"""Requests and answers of the Open Inference Protocol as a client writes and reads them, for the tests."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import httpx
import numpy as np

from model_store.signature import Signature, Tensor, Tensors
from model_store.tensors import ELEMENT_TYPES
from workers.protocols.body import TEXT, Body, Dialect
from workers.protocols.contract import Contract
from workers.protocols.open_inference import InferRequest, parse

HEAD_LENGTH = "Inference-Header-Content-Length"
DATATYPES = {element.name: element.open_inference for element in ELEMENT_TYPES}
DTYPES = {element.open_inference: element.name for element in ELEMENT_TYPES}


def contract_of(signature: Signature, max_instances: int = 8) -> Contract:
    return Contract("m", 1, signature, max_instances)


def parse_infer(data: bytes, signature: Signature, head: int = TEXT) -> InferRequest:
    return parse(Body(data, Dialect.OPEN_INFERENCE, head), contract_of(signature))


def datatype_of(tensor: Tensor) -> str:
    return DATATYPES["string" if tensor.dtype == object else str(tensor.dtype)]


def raw(tensor: Tensor) -> bytes:
    """A tensor's bytes as Triton's clients write them."""
    if tensor.dtype != object:
        return tensor.astype(tensor.dtype.newbyteorder("<")).tobytes()
    return b"".join(struct.pack("<I", len(element)) + element for element in tensor.reshape(-1).tolist())


def described(name: str, tensor: Tensor, **more: object) -> dict[str, object]:
    return {"name": name, "shape": list(tensor.shape), "datatype": datatype_of(tensor), **more}


def listed(tensor: Tensor, *, nested: bool = False) -> list[object]:
    """A tensor's values as JSON has them."""
    values = tensor if nested else tensor.reshape(-1)
    if tensor.dtype == object:
        values = np.array([element.decode() for element in tensor.reshape(-1)], object).reshape(values.shape)
    return list(values.tolist())


def json_request(tensors: Tensors, *, nested: bool = False, **more: object) -> bytes:
    inputs = [described(name, tensor, data=listed(tensor, nested=nested)) for name, tensor in tensors.items()]
    return json.dumps({"inputs": inputs, **more}).encode()


def binary_request(tensors: Tensors, **more: object) -> tuple[bytes, int]:
    """A body whose tensors follow the JSON as bytes, and the length of the JSON."""
    data = {name: raw(tensor) for name, tensor in tensors.items()}
    inputs = [
        described(name, tensor, parameters={"binary_data_size": len(data[name])}) for name, tensor in tensors.items()
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + b"".join(data.values()), len(head)


@dataclass(frozen=True, slots=True)
class Inferred:
    """An answer as a client reads it."""

    document: dict[str, object]
    outputs: Tensors


def read_answer(data: bytes, head: int = TEXT) -> Inferred:
    """An answer's outputs, from its JSON or from what follows it."""
    document = json.loads(data if head == TEXT else data[:head])
    position, outputs = head, {}
    for output in document["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            outputs[output["name"]] = from_json(output)
        else:
            outputs[output["name"]] = from_bytes(data[position : position + size], output)
            position += size
    assert head == TEXT or position == len(data)
    return Inferred(document, outputs)


def from_json(output: dict[str, object]) -> Tensor:
    dtype = DTYPES[str(output["datatype"])]
    values = output["data"]
    if dtype == "string":
        assert isinstance(values, list)
        return np.array([str(value).encode() for value in values], object).reshape(output["shape"])  # type: ignore[call-overload]
    return np.array(values, dtype).reshape(output["shape"])  # type: ignore[call-overload]


def from_bytes(data: bytes, output: dict[str, object]) -> Tensor:
    dtype = DTYPES[str(output["datatype"])]
    if dtype != "string":
        return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(output["shape"])  # type: ignore[call-overload]
    elements, position = [], 0
    while position < len(data):
        (length,) = struct.unpack_from("<I", data, position)
        elements.append(data[position + 4 : position + 4 + length])
        position += 4 + length
    found = np.empty(len(elements), object)
    found[:] = elements
    return found.reshape(output["shape"])  # type: ignore[call-overload]


def infer(caller: httpx.Client, path: str, body: bytes, head: int = TEXT, **headers: str) -> httpx.Response:
    """Ask for an inference; `path` names the model and perhaps a version."""
    if head != TEXT:
        headers[HEAD_LENGTH] = str(head)
    return caller.post(f"/v2/models/{path}/infer", content=body, headers=headers)


def answered(answer: httpx.Response) -> Inferred:
    """The answer of a request that succeeded."""
    assert answer.status_code == 200, answer.text
    length = answer.headers.get(HEAD_LENGTH)
    assert answer.headers["content-type"] == ("application/json" if length is None else "application/octet-stream")
    return read_answer(answer.content, TEXT if length is None else int(length))
