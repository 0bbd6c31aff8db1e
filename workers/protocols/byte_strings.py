"""Tensors of strings as bytes: each element's length in four bytes, little-endian, and the element.

Source: docs/protocol/extension_binary_data.md of Triton's server.
"""

from __future__ import annotations

import struct

import numpy as np

from model_store.signature import Tensor
from workers.protocols.errors import invalid

LENGTH = struct.Struct("<I")


def read_strings(data: memoryview, count: int, place: str) -> Tensor:
    """The `count` elements that `data` consists of, as a flat object array of bytes; raises InputInvalid."""
    found = np.empty(count, object)
    position = 0
    for number in range(count):
        if position + LENGTH.size > len(data):
            raise invalid(f"{place}: the bytes end before element {number} of {count}")
        (length,) = LENGTH.unpack_from(data, position)
        position += LENGTH.size
        if length > len(data) - position:
            raise invalid(f"{place}: element {number} is {length} bytes long, but {len(data) - position} are left")
        found[number] = bytes(data[position : position + length])
        position += length
    if position != len(data):
        raise invalid(f"{place}: {len(data) - position} bytes are left after {count} elements")
    return found


def write_strings(tensor: Tensor) -> bytes:
    """The elements in order, each behind its length; text is written as UTF-8."""
    parts: list[bytes] = []
    for element in tensor.reshape(-1).tolist():
        text = element.encode() if isinstance(element, str) else bytes(element)
        parts += (LENGTH.pack(len(text)), text)
    return b"".join(parts)
