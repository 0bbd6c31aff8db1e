"""Tensors as bytes behind a head of JSON: the Open Inference Protocol with Triton's binary tensor data extension.

Little-endian, row by row, a BOOL in one byte, an element of BYTES behind its length in four.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from sluice.answers import Json, Unreachable
from sluice.described_model import DATATYPES, DTYPES, STRING, Tensor, numpy_dtype

HEAD_LENGTH = "Inference-Header-Content-Length"
_LENGTH = struct.Struct("<I")


def encode(tensors: Mapping[str, Tensor], outputs: Sequence[str] | None) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request with these inputs, for these outputs, or all, as bytes.

    Raises TypeError for an array of elements that have no form here.
    """
    listed, pieces = [], []
    for name, tensor in tensors.items():
        dtype, data = _bytes_of(tensor)
        parameters = {"binary_data_size": len(data)}
        listed.append(
            {"name": name, "shape": list(tensor.shape), "datatype": DATATYPES[dtype], "parameters": parameters}
        )
        pieces.append(data)
    document: dict[str, object] = {"parameters": {"binary_data_output": True}, "inputs": listed}
    if outputs is not None:
        document["outputs"] = [{"name": name} for name in outputs]
    head = json.dumps(document, separators=(",", ":")).encode()
    return b"".join([head, *pieces]), {"Content-Type": "application/octet-stream", HEAD_LENGTH: str(len(head))}


def decode(content: bytes, head_bytes: int | None) -> dict[str, Tensor]:
    """The outputs by name of an answer, whose head has so many bytes, or which is all JSON.

    Raises Unreachable where it is no such answer.
    """
    try:
        document = json.loads(content[:head_bytes])
        found, start = {}, head_bytes or 0
        for output in document["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            found[output["name"]] = _tensor(output, None if size is None else memoryview(content)[start : start + size])
            start += size or 0
    except (KeyError, TypeError, ValueError, struct.error) as error:
        raise Unreachable(f"the answer is not in the Open Inference Protocol: {error}") from error
    return found


def _bytes_of(tensor: Tensor) -> tuple[str, bytes]:
    if tensor.dtype.kind in "OUS":
        return STRING, b"".join(_strings(tensor.reshape(-1).tolist()))
    if tensor.dtype.name not in DATATYPES:
        raise TypeError(f"an array of {tensor.dtype} cannot be sent")
    return tensor.dtype.name, tensor.astype(tensor.dtype.newbyteorder("<"), order="C", copy=False).tobytes()


def _strings(elements: Iterable[object]) -> Iterable[bytes]:
    for element in elements:
        if not isinstance(element, str | bytes):
            kind = type(element).__name__
            raise TypeError(f"an array of objects holds texts or bytes, not {kind}; numbers go into an array of floats")
        text = element.encode() if isinstance(element, str) else element
        yield _LENGTH.pack(len(text))
        yield text


def _tensor(output: Json, data: memoryview | None) -> Tensor:
    dtype, shape = DTYPES[output["datatype"]], tuple(output["shape"])
    if data is None:
        return np.array(output["data"], numpy_dtype(dtype)).reshape(shape)
    if dtype == STRING:
        return texts(_elements(data, math.prod(shape)), output["name"]).reshape(shape)
    return np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).astype(dtype).reshape(shape)


def _elements(data: memoryview, count: int) -> list[bytes]:
    found, at = [], 0
    for _ in range(count):
        (size,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        found.append(bytes(data[at : at + size]))
        at += size
    return found


def texts(elements: Sequence[bytes | str], name: str) -> Tensor:
    """Texts as an array of objects: of `str`, or of `bytes` where the output is called so or one is no UTF-8."""
    found = np.empty(len(elements), object)
    try:
        found[:] = [_text(element, name) for element in elements]
    except UnicodeDecodeError:
        found[:] = [element.encode() if isinstance(element, str) else element for element in elements]
    return found


def _text(element: bytes | str, name: str) -> bytes | str:
    if name.endswith("_bytes"):
        return element.encode() if isinstance(element, str) else element
    return element.decode() if isinstance(element, bytes) else element
