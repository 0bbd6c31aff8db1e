"""The head of an array in NumPy's own format, read strictly: no pickled objects, nothing evaluated.

Source: numpy/lib/format.py (versions 1.0 to 3.0 of the format).
"""

from __future__ import annotations

import ast
import math
import struct
from dataclasses import dataclass
from typing import IO

import numpy as np

from workers.files.contract import FileInvalid

MAGIC = b"\x93NUMPY"
HEAD_BYTES = 64 * 1024
KINDS = "biufSU"
HIGHEST_COUNT = 2**62


@dataclass(frozen=True, slots=True)
class Head:
    """What an array's head says."""

    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return self.dtype.itemsize * math.prod(self.shape[1:])


def read_head(stream: IO[bytes], name: str) -> Head:
    """The head of the array that `stream` is at the beginning of; its values follow. Raises FileInvalid."""
    start = _exactly(stream, 8, name)
    if start[:6] != MAGIC or start[6] not in (1, 2, 3):
        raise FileInvalid(f"{name!r} is no array of NumPy's format 1 to 3")
    size = struct.Struct("<H" if start[6] == 1 else "<I")
    (length,) = size.unpack(_exactly(stream, size.size, name))
    if length > HEAD_BYTES:
        raise FileInvalid(f"the head of {name!r} is longer than {HEAD_BYTES} bytes")
    return parse_head(_exactly(stream, length, name), name)


def parse_head(text: bytes, name: str) -> Head:
    """The head as its text says it: a literal of three keys."""
    try:
        head = ast.literal_eval(text.decode("utf-8").strip())
    # TypeError: a list as a key.
    except (TypeError, ValueError, SyntaxError, MemoryError, RecursionError):
        raise FileInvalid(f"the head of {name!r} cannot be read") from None
    if not isinstance(head, dict) or head.keys() != {"descr", "fortran_order", "shape"}:
        raise FileInvalid(f"the head of {name!r} has not the keys of an array")
    descr, shape = head["descr"], head["shape"]
    if not isinstance(descr, str) or len(descr) > 16:
        raise FileInvalid(f"{name!r} holds records; only plain arrays can be read")
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError):
        raise FileInvalid(f"{name!r} has an unknown dtype") from None
    if dtype.kind not in KINDS or dtype.itemsize == 0:
        raise FileInvalid(f"{name!r} has dtype {dtype}; objects are never read")
    if head["fortran_order"] is not False:
        raise FileInvalid(f"{name!r} is in Fortran's order; save it with numpy.ascontiguousarray")
    if not isinstance(shape, tuple) or not all(type(size) is int and 0 <= size < HIGHEST_COUNT for size in shape):
        raise FileInvalid(f"{name!r} has no shape that an array can have")
    return Head(dtype, shape)


def _exactly(stream: IO[bytes], length: int, name: str) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise FileInvalid(f"{name!r} is cut")
    return data
