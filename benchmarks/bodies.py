"""What is asked: images as JSON in TensorFlow Serving's form, and as binary tensors of the Open Inference Protocol."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.load import post
from model_store.signature import TensorSpec

Images = npt.NDArray[np.float32]

HEADER_LENGTH = "Inference-Header-Content-Length"
GOOD_PREDICTION = b'{"predictions":[['
GOOD_TENSORS = b'"outputs"'


def digits(count: int, *, seed: int = 7) -> Images:
    """Different images, shape (count, 28, 28) from 0 to 1, a fifth of them inked, as much as digits have."""
    generator = np.random.default_rng(seed)
    inked = generator.random((count, 28, 28)) < 0.2
    return np.where(inked, generator.random((count, 28, 28)), 0.0).astype(np.float32)


def photographs(count: int, *, seed: int = 7) -> Images:
    """Different images of noise, shape (count, 224, 224, 3) from 0 to 1."""
    return np.random.default_rng(seed).random((count, 224, 224, 3), dtype=np.float32)


def json_body(images: Images) -> bytes:
    """All images in one request, four decimals for each pixel: about 4 KB for a digit, 1 MB for a photograph."""
    rows = np.round(images.astype(np.float64), 4).tolist()
    return json.dumps({"instances": rows}).encode()


def rounded(images: Images) -> Images:
    """The images as `json_body` writes them, so that other forms of them hold the same numbers."""
    return np.round(images.astype(np.float64), 4).astype(np.float32)


def binary_request(model: str, spec: TensorSpec, images: Images, token: str) -> bytes:
    """A whole request of the binary tensor extension: a JSON header, then the numbers as little-endian float32.

    The answer's tensors are asked for in binary too. KServe's binary_tensor_data.md says how.
    """
    numbers = rounded(images).astype("<f4").tobytes()
    header = json.dumps(
        {
            "inputs": [
                {
                    "name": spec.name,
                    "shape": list(images.shape),
                    "datatype": "FP32",
                    "parameters": {"binary_data_size": len(numbers)},
                }
            ],
            "parameters": {"binary_data_output": True},
        },
        separators=(",", ":"),
    ).encode()
    headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return post(f"/v2/models/{model}/infer", header + numbers, token=token, headers=headers)


def json_request(model: str, images: Images, token: str, *, verb: str = "predict") -> bytes:
    """A whole request in TensorFlow Serving's form; the verb `submit` makes it a job."""
    return post(f"/v1/models/{model}:{verb}", json_body(images), token=token)


def json_answer(body: bytes) -> Images:
    """The predictions in an answer to `json_request`, one row each."""
    return np.array(json.loads(body)["predictions"], np.float32)


def binary_answer(headers: Mapping[str, str], body: bytes) -> Images:
    """The first output tensor of an answer to `binary_request`; the names in `headers` are in lower case."""
    length = int(headers[HEADER_LENGTH.lower()])
    output = json.loads(body[:length])["outputs"][0]
    size = int(output["parameters"]["binary_data_size"])
    shape: Sequence[int] = output["shape"]
    return np.frombuffer(body[length : length + size], "<f4").reshape(shape)
