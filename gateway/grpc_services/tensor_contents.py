"""Tensors in the messages of the Open Inference Protocol: typed contents as raw bytes, and raw bytes as typed contents.

Raw bytes are those of Triton's binary tensor data extension. Sources: open_inference_grpc.proto of the Open Inference
Protocol, whose comments say which field holds which datatype.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.grpc_services.messages import Fields
from model_store.tensors import ELEMENT_TYPES
from workers.protocols.byte_strings import read_strings, write_strings
from workers.protocols.errors import invalid

BYTES = "BYTES"
# These have no typed contents: they travel as raw bytes only.
RAW_ONLY = frozenset({"FP16", "BF16"})
# More than NumPy has. The product of a million sizes would hold the interpreter for hours.
MOST_DIMENSIONS = 64


@dataclass(frozen=True, slots=True)
class Contents:
    """Where elements of a datatype lie: a field by name and number, and their dtype as raw bytes.

    A `packed` field has them on the wire one after the other just as the raw bytes do, so none is looked at.
    """

    field: str
    number: int
    dtype: str
    packed: bool = False


CONTENTS: Mapping[str, Contents] = {
    "BOOL": Contents("bool_contents", 1, "<u1", packed=True),
    "INT8": Contents("int_contents", 2, "<i1"),
    "INT16": Contents("int_contents", 2, "<i2"),
    "INT32": Contents("int_contents", 2, "<i4"),
    "INT64": Contents("int64_contents", 3, "<i8"),
    "UINT8": Contents("uint_contents", 4, "<u1"),
    "UINT16": Contents("uint_contents", 4, "<u2"),
    "UINT32": Contents("uint_contents", 4, "<u4"),
    "UINT64": Contents("uint64_contents", 5, "<u8"),
    "FP32": Contents("fp32_contents", 6, "<f4", packed=True),
    "FP64": Contents("fp64_contents", 7, "<f8", packed=True),
    BYTES: Contents("bytes_contents", 8, ""),
}
FIELDS = tuple(sorted({known.field for known in CONTENTS.values()}))
KNOWN = frozenset(element.open_inference for element in ELEMENT_TYPES) | RAW_ONLY


def raw_of(tensor: Fields, place: str) -> bytes:
    """The bytes of an input's typed contents; raises InputInvalid, which names the place."""
    known = _contents_of(tensor.datatype, place)
    others = [name for name in FIELDS if name != known.field and len(getattr(tensor.contents, name))]
    if others:
        raise invalid(f"{place}.contents has {others[0]}, but {tensor.datatype} is in {known.field}")
    values = getattr(tensor.contents, known.field)
    if len(tensor.shape) > MOST_DIMENSIONS:
        raise invalid(f"{place}.shape has more than {MOST_DIMENSIONS} dimensions")
    count = math.prod(tensor.shape)
    if len(values) != count:
        raise invalid(f"{place}.contents has {len(values)} values, but shape {_shown(tensor.shape)} takes {count}")
    if tensor.datatype == BYTES:
        strings = np.empty(count, object)
        strings[:] = list(values)
        return write_strings(strings)
    dtype = np.dtype(known.dtype)
    if known.packed:
        return _packed(tensor.contents, count * dtype.itemsize)
    wide = np.fromiter(values, np.uint64 if dtype.kind == "u" else np.int64, count)
    if count and not (wide.min() >= np.iinfo(dtype).min and wide.max() <= np.iinfo(dtype).max):
        raise invalid(f"{place}.contents has a value that {tensor.datatype} has no room for")
    return wide.astype(dtype).tobytes()


def fill(contents: Fields, datatype: str, shape: Sequence[int], raw: memoryview) -> None:
    """Write an output's bytes as typed contents."""
    known, count = CONTENTS[datatype], math.prod(shape)
    if datatype == BYTES:
        contents.bytes_contents.extend(read_strings(raw, count, "the answer").tolist())
    elif known.packed:
        contents.MergeFromString(bytes([known.number << 3 | 2]) + _varint(len(raw)) + raw)
    else:
        getattr(contents, known.field).extend(np.frombuffer(raw, known.dtype).tolist())


def require_datatype(datatype: str, place: str) -> None:
    """Raises InputInvalid for a datatype that the protocol does not have."""
    if datatype not in KNOWN:
        raise invalid(f"{place}.datatype {datatype[:64]!r} is unknown; known are {', '.join(sorted(KNOWN))}")


def _contents_of(datatype: str, place: str) -> Contents:
    require_datatype(datatype, place)
    known = CONTENTS.get(datatype)
    if known is None:
        raise invalid(f"{place}: {datatype} has no typed contents; send raw_input_contents")
    return known


def _packed(contents: Fields, size: int) -> bytes:
    """The elements of the only field that is set, as they were on the wire: behind its tag and its length."""
    start = 1 + len(_varint(size))
    written: bytes = contents.SerializeToString()
    return written[start : start + size]


def _varint(number: int) -> bytes:
    """As protobuf writes lengths: seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _shown(shape: Sequence[int]) -> str:
    return "[" + ",".join(str(size) for size in shape[:8]) + (",…]" if len(shape) > 8 else "]")
