"""The forms in which servers take an image and give its prediction; each takes one image a request.

The Open Inference Protocol's JSON and its binary tensors are described in KServe's rest_predict_v2.md and
binary_tensor_data.md.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from benchmarks.bodies import HEADER_LENGTH, Images
from benchmarks.load import JSON_TYPE

JSON, BINARY = "JSON", "binary"
DECIMALS = 4


@dataclass(frozen=True, slots=True)
class Request:
    """A body and the headers that describe it."""

    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: dict(JSON_TYPE))


@dataclass(frozen=True, slots=True)
class Form:
    """How an image of shape (1, ...) is asked for at a path, and how its row of probabilities is read.

    `read` takes the answer's headers, their names in lower case, and its body; it raises ValueError, KeyError,
    IndexError or TypeError where the body is something else.
    """

    name: str
    kind: str
    path: str
    write: Callable[[Images], Request]
    read: Callable[[Mapping[str, str], bytes], Images]


def predict_json(path: str, *, answer: str | None = "predictions") -> Form:
    """TensorFlow Serving's form; `answer` is the field of the predictions, None where they are the whole answer."""

    def read(_: Mapping[str, str], body: bytes) -> Images:
        found = json.loads(body)
        return np.array((found if answer is None else found[answer])[0], np.float32)

    return Form("JSON", JSON, path, lambda image: Request(json.dumps({"instances": numbers(image)}).encode()), read)


def v2_json(path: str, tensor: str) -> Form:
    """The Open Inference Protocol in JSON, the numbers in one flat list."""

    def write(image: Images) -> Request:
        tensors = [described(tensor, image) | {"data": numbers(image.ravel())}]
        return Request(json.dumps({"inputs": tensors}).encode())

    def read(_: Mapping[str, str], body: bytes) -> Images:
        return np.array(json.loads(body)["outputs"][0]["data"], np.float32)

    return Form("V2 JSON", JSON, path, write, read)


def v2_binary(path: str, tensor: str) -> Form:
    """The protocol's binary tensors, in the request and in the answer."""

    def write(image: Images) -> Request:
        data = image.astype("<f4").tobytes()
        tensors = [described(tensor, image) | {"parameters": {"binary_data_size": len(data)}}]
        head = json.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}}).encode()
        headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}
        return Request(head + data, headers)

    def read(headers: Mapping[str, str], body: bytes) -> Images:
        return np.frombuffer(body[int(headers[HEADER_LENGTH.lower()]) :], "<f4")

    return Form("V2 binary", BINARY, path, write, read)


def raw(path: str) -> Form:
    """The numbers as float32 and nothing else, there and back."""

    def write(image: Images) -> Request:
        return Request(image.astype("<f4").tobytes(), {"Content-Type": "application/octet-stream"})

    return Form("raw bytes", BINARY, path, write, lambda _, body: np.frombuffer(body, "<f4"))


def described(tensor: str, image: Images) -> dict[str, object]:
    return {"name": tensor, "shape": list(image.shape), "datatype": "FP32"}


def numbers(image: Images) -> object:
    """Nested lists with four decimals for each pixel: about 4 KB for a digit."""
    return np.round(image.astype(np.float64), DECIMALS).tolist()
