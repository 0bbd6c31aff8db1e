"""TensorFlow's tensors as raw bytes, and raw bytes as TensorFlow's tensors.

Raw bytes are those of Triton's binary tensor data extension. Sources: tensorflow/core/framework/tensor.proto, whose
comments say which field holds which type; tensor.cc for what fewer values than elements mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gateway.errors import RequestTooLarge
from gateway.grpc_services.messages import Fields, enum_number, message
from model_store.signature import STRING, Tensor
from model_store.tensors import ELEMENT_TYPES
from workers.protocols.byte_strings import LENGTH, read_strings, write_strings
from workers.protocols.errors import invalid, shown_name
from workers.protocols.example_bytes import delimited

TensorProto = message("tensorflow.TensorProto")
# No tensor has more dimensions there, and to multiply a million of them would take hours.
MOST_DIMENSIONS = 254
LARGEST_DIMENSION = 2**31


@dataclass(frozen=True, slots=True)
class Values:
    """Where the elements of a type lie in a message: a field by name and number, and their dtype as raw bytes.

    A `packed` field has them on the wire one after the other just as the raw bytes do, so none is looked at.
    """

    datatype: str
    type_number: int
    field: str
    number: int
    dtype: str
    packed: bool = False

    @property
    def width(self) -> int:
        """How many bytes an element takes at least."""
        return np.dtype(self.dtype).itemsize if self.dtype else LENGTH.size


_FIELDS: Mapping[str, tuple[str, str, bool]] = {
    "bool": ("bool_val", "|u1", True),
    "uint8": ("int_val", "|u1", False),
    "uint16": ("int_val", "<u2", False),
    "uint32": ("uint32_val", "<u4", False),
    "uint64": ("uint64_val", "<u8", False),
    "int8": ("int_val", "|i1", False),
    "int16": ("int_val", "<i2", False),
    "int32": ("int_val", "<i4", False),
    "int64": ("int64_val", "<i8", False),
    # The bits of a half as an integer.
    "float16": ("half_val", "<u2", False),
    "float32": ("float_val", "<f4", True),
    "float64": ("double_val", "<f8", True),
    STRING: ("string_val", "", False),
}
VALUES = tuple(
    Values(
        element.open_inference,
        enum_number("tensorflow.DataType", element.tensorflow),
        field,
        TensorProto.DESCRIPTOR.fields_by_name[field].number,
        dtype,
        packed,
    )
    for element in ELEMENT_TYPES
    for field, dtype, packed in (_FIELDS[element.name],)
)
_BY_TYPE: Mapping[int, Values] = {values.type_number: values for values in VALUES}
_BY_DATATYPE: Mapping[str, Values] = {values.datatype: values for values in VALUES}


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor as the Open Inference Protocol writes it."""

    datatype: str
    shape: tuple[int, ...]
    data: bytes


def raw_of(tensor: Fields, place: str, most_bytes: int) -> RawTensor:
    """The elements of a TensorProto.

    As in TensorFlow, the last of fewer values than elements stands for those that are missing, zero where there is no
    value at all; a tensor of more than `most_bytes` is refused before it is made. Raises InputInvalid, which names the
    place, and RequestTooLarge.
    """
    values = _BY_TYPE.get(tensor.dtype)
    if values is None:
        raise invalid(f"{place}: tensors of the type {_type_name(tensor.dtype)} are not taken")
    shape = _shape(tensor, place)
    count = math.prod(shape)
    if count * values.width > most_bytes:
        raise RequestTooLarge(f"{place}: the tensor is larger than {most_bytes} bytes")
    return RawTensor(values.datatype, shape, _data(tensor, values, count, most_bytes, place))


def least_bytes(tensor: Fields) -> int:
    """How many bytes the elements of a TensorProto take at least, whatever of them its message has."""
    values, count = _BY_TYPE.get(tensor.dtype), 1
    for dimension in tensor.tensor_shape.dim[:MOST_DIMENSIONS]:
        count = min(count * max(dimension.size, 0), LARGEST_DIMENSION)
    return 0 if values is None else count * values.width


def tensor_of(raw: RawTensor) -> Fields:
    """A TensorProto with its elements in the field of their type, where TensorFlow Serving's clients look for them."""
    values = _BY_DATATYPE[raw.datatype]
    made: Fields = TensorProto(dtype=values.type_number)
    for size in raw.shape:
        made.tensor_shape.dim.add(size=size)
    if values.packed:
        made.MergeFromString(delimited(values.number, raw.data))
    elif values.dtype:
        getattr(made, values.field).extend(np.frombuffer(raw.data, values.dtype).tolist())
    else:
        made.string_val.extend(read_strings(memoryview(raw.data), math.prod(raw.shape), "the answer").tolist())
    return made


def _shape(tensor: Fields, place: str) -> tuple[int, ...]:
    dimensions = tensor.tensor_shape.dim
    if tensor.tensor_shape.unknown_rank:
        raise invalid(f"{place}: the tensor has a shape of unknown rank")
    if len(dimensions) > MOST_DIMENSIONS:
        raise invalid(f"{place}: the tensor has more than {MOST_DIMENSIONS} dimensions")
    shape = tuple(dimension.size for dimension in dimensions)
    if any(not 0 <= size < LARGEST_DIMENSION for size in shape):
        raise invalid(f"{place}: a dimension of the tensor is negative or too large")
    return shape


def _data(tensor: Fields, values: Values, count: int, most_bytes: int, place: str) -> bytes:
    content: bytes = tensor.tensor_content
    given = getattr(tensor, values.field)
    if content:
        size = count * np.dtype(values.dtype).itemsize if values.dtype else -1
        if len(content) != size:
            raise invalid(
                f"{place}: tensor_content has {len(content)} bytes, but the shape takes {size}"
                if values.dtype
                else f"{place}: strings are taken from string_val, not from tensor_content"
            )
        return content
    if len(given) > count:
        raise invalid(f"{place}: {values.field} has {len(given)} values, but the shape takes {count}")
    if not values.dtype:
        return _strings(given, count, most_bytes, place)
    found = _numbers(given, values, place)
    if found.size < count:
        found = np.concatenate([found, np.full(count - found.size, found[-1] if found.size else 0, found.dtype)])
    return found.tobytes()


def _strings(given: Sequence[bytes], count: int, most_bytes: int, place: str) -> bytes:
    last = given[-1] if given else b""
    if sum(map(len, given)) + (count - len(given)) * len(last) + count * LENGTH.size > most_bytes:
        raise RequestTooLarge(f"{place}: the tensor is larger than {most_bytes} bytes")
    found = np.empty(len(given), object)
    found[:] = list(given)
    # A message of 18 bytes may ask for millions of them.
    return write_strings(found) + (LENGTH.pack(len(last)) + last) * (count - len(given))


def _numbers(given: Fields, values: Values, place: str) -> Tensor:
    dtype = np.dtype(values.dtype)
    if dtype.kind == "f" or values.packed:
        return np.fromiter(given, dtype, len(given))
    wide = np.fromiter(given, np.uint64 if values.number == _UNSIGNED else np.int64, len(given))
    limits = np.iinfo(dtype)
    if wide.size and not (wide.min() >= limits.min and wide.max() <= limits.max):
        raise invalid(f"{place}: {values.field} has a value that {values.datatype} has no room for")
    return wide.astype(dtype)


_UNSIGNED = _BY_DATATYPE["UINT64"].number


def _type_name(number: int) -> str:
    known = {one.number: one.name for one in TensorProto.DESCRIPTOR.fields_by_name["dtype"].enum_type.values}
    return shown_name(known.get(number, str(number)))
