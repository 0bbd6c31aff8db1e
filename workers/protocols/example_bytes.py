"""Examples as TensorFlow stores them: `tensorflow.Example` in protobuf's wire format, for models that parse their own.

Source: tensorflow/core/example/example.proto and feature.proto. A worker has no use for a protobuf runtime beside this.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from workers.protocols.errors import invalid, json_type, shown_name
from workers.protocols.json_tensors import LeafInvalid, is_b64, string_bytes

# Numbers of fields: a map's entry has its key in the first and its value in the second.
KEY, VALUE = 1, 2
BYTES_LIST, FLOAT_LIST, INT64_LIST = 1, 2, 3
# What stands in a message of one field only, or under its first number in each of the lists.
ONLY = 1
DELIMITED = 2  # a wire type: a length and so many bytes
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1


def example_bytes(features: Mapping[str, object], place: str) -> bytes:
    """One Example with these features, each a JSON value or a list of such; raises InputInvalid.

    Numbers without a fraction are of kind int64, unless others in their list have one; true and false are 1 and 0.
    """
    return serialized_example(entry_bytes(features, place))


def serialized_example(entries: bytes) -> bytes:
    """The Example of features that are written already; of two with one name the last counts, as in every map."""
    return delimited(ONLY, entries)


def entry_bytes(features: Mapping[str, object], place: str) -> bytes:
    """Features as entries of the map that an Example is, one after the other; raises InputInvalid."""
    entries = [
        delimited(
            ONLY, delimited(KEY, text_bytes(name, place, name)) + delimited(VALUE, feature_bytes(value, name, place))
        )
        for name, value in sorted(features.items())
    ]
    return b"".join(entries)


def feature_bytes(value: object, name: str, place: str) -> bytes:
    values = value if isinstance(value, list) else [value]
    if not values:
        return b""  # a feature of no kind, as an empty list is there
    if all(isinstance(one, str) or is_b64(one) for one in values):
        parts = [delimited(ONLY, text_bytes(one, place, name)) for one in values]
        return delimited(BYTES_LIST, b"".join(parts))
    numbers = [one for one in values if isinstance(one, int | float)]
    if len(numbers) < len(values):
        wrong = next(one for one in values if not isinstance(one, int | float))
        raise invalid(
            f"Feature: {shown_name(name)} has element with unexpected JSON type: {json_type(wrong)} at {place}"
        )
    integers = [one for one in numbers if isinstance(one, int)]
    if len(integers) < len(numbers):
        return delimited(FLOAT_LIST, delimited(ONLY, b"".join(float_bytes(one) for one in numbers)))
    if min(integers) < INT64_MIN or max(integers) > INT64_MAX:
        raise invalid(f"Feature: {shown_name(name)} has an element out of the range of int64 at {place}")
    return delimited(INT64_LIST, delimited(ONLY, b"".join(varint(one % 2**64) for one in integers)))


def text_bytes(value: object, place: str, name: str) -> bytes:
    try:
        return string_bytes(value, 0)
    except LeafInvalid as error:
        raise invalid(f"Feature: {shown_name(name)}: {error} at {place}") from None


def float_bytes(value: float) -> bytes:
    """float32, little-endian; too large a number is infinity."""
    try:
        return struct.pack("<f", value)
    except (OverflowError, struct.error):  # the second for integers beyond float64
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def delimited(number: int, data: bytes) -> bytes:
    """A field of bytes, of text, of a message, or of packed numbers."""
    return varint(number << 3 | DELIMITED) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """A number, seven bits a byte, the lowest first; negative ones come as their 64 bits."""
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
