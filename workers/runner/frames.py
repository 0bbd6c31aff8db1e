"""Frames between a parent and its runner: a JSON header and the raw bytes of tensors, never pickle.

    magic (4 bytes) · header length (u32) · payload length (u64) · header · payload        all little-endian

The header is a JSON object; its `tensors` lists `[name, dtype, shape, bytes]` in the order of the payload. A numeric
tensor is its little-endian bytes in C order; a string tensor is one u32 length per element, then the strings.
Neither side believes the other: every length is checked before it is used.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from typing import Any, NoReturn

import numpy as np

from model_store.signature import STRING, Tensor, Tensors

MAGIC = b"SLR1"
PREFIX = struct.Struct("<4sIQ")
LENGTH = np.dtype("<u4")
HEADER_BYTES = 8 * 1024**2
REQUEST_BYTES = 1024**3
DTYPES = frozenset(np.dtype(code).name for code in "?bhilqBHILQefdFD")
RANK = 32

Header = dict[str, Any]


class FrameInvalid(Exception):
    """What arrived, or was to be sent, is no frame."""


def encode(header: Header, tensors: Tensors) -> list[memoryview]:
    """The buffers of one frame, without copying numeric tensors; FrameInvalid for what a frame cannot carry."""
    bodies = [(name, _dtype_name(tensor), tensor.shape, _body(tensor)) for name, tensor in tensors.items()]
    listed = [[name, dtype, shape, body.nbytes] for name, dtype, shape, body in bodies]
    try:
        text = json.dumps({**header, "tensors": listed}, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise FrameInvalid("the header is not plain JSON") from error
    if len(text) > HEADER_BYTES:
        raise FrameInvalid("the header is too long")
    prefix = PREFIX.pack(MAGIC, len(text), sum(body.nbytes for *_, body in bodies))
    return [memoryview(prefix + text), *(body for *_, body in bodies)]


def send(channel: socket.socket, frame: list[memoryview], *, deadline: float | None = None) -> None:
    """Send one frame; TimeoutError once `deadline` (of time.monotonic) has passed."""
    for buffer in frame:
        channel.settimeout(_remaining(deadline))
        channel.sendall(buffer)


def receive(channel: socket.socket, limit_bytes: int, *, deadline: float | None = None) -> tuple[Header, Tensors]:
    """The next frame, its payload at most `limit_bytes`; EOFError where the other side is gone."""
    magic, header_bytes, payload_bytes = PREFIX.unpack(_read(channel, PREFIX.size, deadline))
    if magic != MAGIC or header_bytes > HEADER_BYTES or payload_bytes > limit_bytes:
        raise FrameInvalid("the frame has a wrong mark or is too large")
    header = _parse(bytes(_read(channel, header_bytes, deadline)))
    return header, _tensors(header.pop("tensors", None), _read(channel, payload_bytes, deadline))


def unpacked(data: bytes) -> tuple[Header, Tensors]:
    """Header and tensors of the bytes of one frame, joined; FrameInvalid where they are none."""
    if len(data) < PREFIX.size:
        raise FrameInvalid("the frame is cut off")
    magic, header_bytes, payload_bytes = PREFIX.unpack_from(data)
    start = PREFIX.size + header_bytes
    if magic != MAGIC or start + payload_bytes != len(data):
        raise FrameInvalid("the frame has a wrong mark or another length")
    header = _parse(data[PREFIX.size : start])
    return header, _tensors(header.pop("tensors", None), memoryview(data)[start:])


def _dtype_name(tensor: Tensor) -> str:
    name = STRING if tensor.dtype == object else tensor.dtype.name
    if name != STRING and name not in DTYPES:
        raise FrameInvalid(f"a tensor of {name} cannot be sent")
    return name


def _body(tensor: Tensor) -> memoryview:
    if tensor.dtype == object:
        texts = [item if isinstance(item, bytes) else str(item).encode() for item in tensor.reshape(-1).tolist()]
        lengths = np.array([len(text) for text in texts], LENGTH)
        return memoryview(lengths.tobytes() + b"".join(texts))
    little = tensor.astype(tensor.dtype.newbyteorder("<"), order="C", copy=False)
    return little.reshape(-1).view(np.uint8).data if little.size else memoryview(b"")


def _remaining(deadline: float | None) -> float | None:
    if deadline is None:
        return None
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    return remaining


def _read(channel: socket.socket, size: int, deadline: float | None) -> memoryview:
    # Not filled with zeros first: memory is taken as bytes arrive, not as they are announced.
    view = np.empty(size, np.uint8).data
    done = 0
    while done < size:
        channel.settimeout(_remaining(deadline))
        count = channel.recv_into(view[done:])
        if count == 0:
            raise EOFError
        done += count
    return view


def _parse(text: bytes) -> Header:
    try:
        header = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise FrameInvalid("the header is not JSON") from error
    if not isinstance(header, dict):
        raise FrameInvalid("the header is not an object")
    return header


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _tensors(listed: object, payload: memoryview) -> Tensors:
    if not isinstance(listed, list):
        raise FrameInvalid("the header lists no tensors")
    tensors: Tensors = {}
    start = 0
    for row in listed:
        name, dtype, shape, size = _row(row)
        body = payload[start : start + size]
        if len(body) != size or name in tensors:
            raise FrameInvalid("the tensors do not fit the payload")
        tensors[name] = _strings(body, shape) if dtype == STRING else _numbers(body, dtype, shape)
        start += size
    if start != len(payload):
        raise FrameInvalid("the payload is longer than its tensors")
    return tensors


def _row(row: object) -> tuple[str, str, tuple[int, ...], int]:
    if not (isinstance(row, list) and len(row) == 4):
        raise FrameInvalid("a tensor is not described")
    name, dtype, shape, size = row
    if not (isinstance(name, str) and (dtype == STRING or (isinstance(dtype, str) and dtype in DTYPES))):
        raise FrameInvalid("a tensor has no name or an unknown dtype")
    if not (isinstance(shape, list) and len(shape) <= RANK and all(_is_size(number) for number in [*shape, size])):
        raise FrameInvalid("a tensor has no proper shape")
    return name, dtype, tuple(shape), size


def _is_size(number: object) -> bool:
    return type(number) is int and 0 <= number < 2**48


def _numbers(body: memoryview, dtype: str, shape: tuple[int, ...]) -> Tensor:
    kind = np.dtype(dtype).newbyteorder("<")
    if math.prod(shape) * kind.itemsize != len(body):
        raise FrameInvalid("a tensor's bytes do not fit its shape")
    return _shaped(np.frombuffer(body, kind) if len(body) else np.empty(0, kind), shape)


def _strings(body: memoryview, shape: tuple[int, ...]) -> Tensor:
    count = math.prod(shape)
    start = count * LENGTH.itemsize
    if start > len(body):
        raise FrameInvalid("a tensor's strings do not fit its shape")
    lengths = np.frombuffer(body[:start], LENGTH) if count else np.empty(0, LENGTH)
    if start + int(lengths.sum(dtype=np.uint64)) != len(body):
        raise FrameInvalid("a tensor's strings do not fit its bytes")
    texts = np.empty(count, object)
    for index, length in enumerate(lengths.tolist()):
        texts[index] = bytes(body[start : start + length])
        start += length
    return _shaped(texts, shape)


def _shaped(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return flat.reshape(shape)
    except ValueError as error:  # numpy bounds the product of all dimensions, also where one of them is 0
        raise FrameInvalid("a tensor has no proper shape") from error
