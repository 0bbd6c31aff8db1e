"""JSON values to tensors, exactly: every list's length and every value's type is checked against the signature."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeGuard

import numpy as np

from model_store.signature import STRING, Tensor, TensorSpec
from workers.protocols.contract import Contract
from workers.protocols.errors import excerpt, invalid, json_type, shown_name
from workers.protocols.file_inputs import tensor_of_files

# What TensorFlow calls them in its messages; the other dtypes have numpy's names there too.
TENSORFLOW_NAMES = {"float16": "half", "float32": "float", "float64": "double"}
B64 = "b64"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor stands in the body: `instances` (and a name in each row, if rows are objects) or `inputs.name`."""

    root: str
    row_member: str = ""

    def at(self, indices: Sequence[int]) -> str:
        """The place of one value, such as `instances[3].pixels[5][0]`."""
        steps = [f"[{index}]" for index in indices]
        if self.row_member and steps:
            steps.insert(1, f".{shown_name(self.row_member)}")
        return self.root + "".join(steps)


def tensor_of(value: object, spec: TensorSpec, place: Place, contract: Contract | None = None) -> Tensor:
    """The array of shape and dtype `spec` that `value` (lists to the depth of its rank) spells out.

    Strings become an object array of bytes, and files in the place of instances of numbers are read by the contract.
    Raises InputInvalid with the first wrong place and what was expected there.
    """
    if spec.dtype != STRING and type(value) is list and value and is_b64(value[0]):
        return files_of(value, spec, place, contract)
    values: list[object] = [value]
    shape: list[int] = []
    for expected in spec.shape:
        size = list_size(values, expected, shape, spec, place)
        shape.append(size)
        values = list(chain.from_iterable(values))  # type: ignore[arg-type]  # list_size has seen that all are lists
    return leaves(values, shape, spec, place).reshape(shape)


def files_of(values: list[object], spec: TensorSpec, place: Place, contract: Contract | None) -> Tensor:
    """Instances that are files, each as `{"b64": "…"}`."""
    try:
        files = [file_bytes(value, number) for number, value in enumerate(values)]
    except LeafInvalid as error:
        raise invalid(f"{error} at {place.at([error.number])}; {expectation(spec)}") from None
    return tensor_of_files(contract, spec, files, lambda number: place.at([number]))


def expectation(spec: TensorSpec) -> str:
    """What the signature takes, in words, such as `input 'x' takes float of shape [-1,28,28]`."""
    shape = ",".join("-1" if size is None else str(size) for size in spec.shape)
    return f"input '{shown_name(spec.name)}' takes {type_name(spec)} of shape [{shape}]"


def type_name(spec: TensorSpec) -> str:
    return TENSORFLOW_NAMES.get(spec.dtype, spec.dtype)


def list_size(values: list[object], expected: int | None, shape: list[int], spec: TensorSpec, place: Place) -> int:
    """The one length that all of `values`, lists of one level, have; a free dimension takes that of the first list."""
    if set(map(type, values)) != {list}:
        number = next(number for number, value in enumerate(values) if type(value) is not list)
        where = place.at(indices(number, shape))
        raise invalid(f"Expecting a list but got {described(values[number])} at {where}; {expectation(spec)}")
    sizes = [len(value) for value in values]  # type: ignore[arg-type]  # all are lists
    size = sizes[0] if expected is None else expected
    if sizes.count(size) != len(sizes):
        number = next(number for number, found in enumerate(sizes) if found != size)
        where = place.at(indices(number, shape))
        found = sizes[number]
        raise invalid(
            f"Encountered list at unexpected size: {found} at level: {len(shape)} expected size: {size} at {where}; "
            f"{expectation(spec)}"
        )
    if size == 0:
        raise invalid(f"Encountered an empty list at {place.at(indices(0, shape))}; {expectation(spec)}")
    return size


def indices(number: int, shape: Sequence[int]) -> list[int]:
    """The indices of the value that is `number`th in the order of the text."""
    found: list[int] = []
    for size in reversed(shape):
        number, index = divmod(number, size)
        found.insert(0, index)
    return found


def described(value: object) -> str:
    return f"{json_type(value)} {excerpt(value)}" if type(value) is not list else "a list"


def leaves(values: list[object], shape: list[int], spec: TensorSpec, place: Place) -> Tensor:
    """The values of the innermost lists as a flat array."""
    kind = "s" if spec.dtype == STRING else np.dtype(spec.dtype).kind
    allowed, convert = KINDS[kind]
    if not set(map(type, values)) <= allowed:
        number = next(number for number, value in enumerate(values) if type(value) not in allowed)
        raise wrong_type(values[number], spec, place.at(indices(number, shape)))
    try:
        return convert(values, spec)
    except LeafInvalid as error:
        where = place.at(indices(error.number, shape))
        raise invalid(f"{error} at {where}; {expectation(spec)}") from None


def wrong_type(value: object, spec: TensorSpec, where: str) -> Exception:
    if type(value) is list:
        rank = len(spec.shape)
        return invalid(
            f"Encountered list at unexpected level: {rank} expected < {rank} at {where}; {expectation(spec)}"
        )
    return invalid(
        f"JSON Value: {excerpt(value)} Type: {json_type(value)} is not of expected type: {type_name(spec)} at {where}; "
        f"{expectation(spec)}"
    )


class LeafInvalid(Exception):
    """One value, the `number`th, has the right type and cannot be held all the same."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number


def floats(values: list[object], spec: TensorSpec) -> Tensor:
    """Too large a number, even an integer of 400 digits, is infinity, as a float literal of that size is."""
    numbers: list[float] = values  # type: ignore[assignment]  # checked by type
    try:
        read = np.array(numbers, np.float64)
    except OverflowError:
        read = np.array([nearest(number) for number in numbers])
    with np.errstate(over="ignore"):
        return read.astype(spec.dtype)


def nearest(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def integers(values: list[object], spec: TensorSpec) -> Tensor:
    numbers: list[int] = values  # type: ignore[assignment]  # checked by type
    info = np.iinfo(spec.dtype)
    if min(numbers) < info.min or max(numbers) > info.max:
        number = next(number for number, value in enumerate(numbers) if not info.min <= value <= info.max)
        raise LeafInvalid(number, f"JSON Value: {excerpt(numbers[number])} is out of the range of {spec.dtype}")
    return np.array(numbers, spec.dtype)


def booleans(values: list[object], spec: TensorSpec) -> Tensor:
    return np.array(values, spec.dtype)


def strings(values: list[object], _: TensorSpec) -> Tensor:
    found = np.empty(len(values), object)
    found[:] = [string_bytes(value, number) for number, value in enumerate(values)]
    return found


def string_bytes(value: object, number: int) -> bytes:
    """The bytes of a string (as UTF-8) or of `{"b64": "…"}`."""
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise LeafInvalid(number, "a string with half of a surrogate pair") from None
    if is_b64(value):
        try:
            return base64.b64decode(value[B64], validate=True)
        except (binascii.Error, ValueError):
            raise LeafInvalid(number, "Unable to base64 decode") from None
    raise LeafInvalid(number, f"JSON Value: {excerpt(value)} not formatted correctly for base64 data")


def file_bytes(value: object, number: int) -> bytes:
    """The bytes of `{"b64": "…"}`, in which a file comes."""
    if not is_b64(value):
        raise LeafInvalid(number, f"Expecting a file, as the others, but got {described(value)}")
    return string_bytes(value, number)


def decoded_base64(texts: Tensor, place: Place) -> Tensor:
    """The bytes that strings stand for where JSON cannot hold them otherwise; raises InputInvalid."""
    found = np.empty(texts.shape, object)
    for number, text in enumerate(texts.reshape(-1).tolist()):
        try:
            found.reshape(-1)[number] = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            raise invalid(f"Unable to base64 decode {place.at([number])}: in JSON, a file is base64") from None
    return found


def is_b64(value: object) -> TypeGuard[dict[str, str]]:
    """Whether a JSON value is bytes: an object whose only key is `b64`, with a string."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get(B64), str)


KINDS: dict[str, tuple[set[type], Callable[[list[object], TensorSpec], Tensor]]] = {
    "f": ({int, float}, floats),
    "i": ({int}, integers),
    "u": ({int}, integers),
    "b": ({bool}, booleans),
    "s": ({str, dict}, strings),
}
