"""The fast way from JSON text to one tensor of numbers: about 10 microseconds for a digit of 28x28 pixels.

simdjson writes all numbers of an array into one typed buffer, but flattens nested lists without looking at their
lengths, and takes the first of two equal keys. So the text's structure is proven first: without white space and the
characters of numbers, what remains of a good body is the key and the brackets and commas of a full grid. Anything else
(strings, null, NaN, ragged rows, another key) leaves other characters, and is left to the exact way of `json_text` and
`json_tensors`, which either reads it or knows what to complain about.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from model_store.signature import Tensor, TensorSpec
from workers.protocols.number_buffer import ERRORS, NumberBuffer, parsed

NUMBER_AND_SPACE = b"0123456789.+-eE \t\r\n"
SIGNATURE = b'"signature_name":"serving_default"'
# Enough for sixteen digits. Larger ones are few, and would make the memory of remembered outlines depend on who calls.
REMEMBERED_BYTES = 16 * 1024
REMEMBERED_OUTLINES = 64


class Outline(NamedTuple):
    """What the structure alone tells: the key that holds the tensor, whether a signature is named, shape and size."""

    key: str
    names_signature: bool
    shape: tuple[int, ...]
    size: int


def frames() -> dict[bytes, tuple[str, bool]]:
    """What may stand around the tensor, without the characters of numbers, e.g. `{"instancs":}`."""
    found = {}
    for key in ("instances", "inputs"):
        member = b'"%s":' % key.encode()
        found[b"{%s}" % member] = (key, False)
        found[b"{%s,%s}" % (SIGNATURE, member)] = (key, True)
        found[b"{%s,%s}" % (member, SIGNATURE)] = (key, True)
    return {frame.translate(None, NUMBER_AND_SPACE): meaning for frame, meaning in found.items()}


FRAMES = frames()


@dataclass(frozen=True, slots=True)
class NumberReader:
    """Reads bodies whose only tensor is `spec`, which must hold numbers and have at least one dimension."""

    spec: TensorSpec
    numbers: NumberBuffer

    @classmethod
    def of(cls, inputs: tuple[TensorSpec, ...]) -> NumberReader | None:
        """The reader for these inputs; none where they are several, a scalar, or no numbers."""
        if len(inputs) != 1 or not inputs[0].shape:
            return None
        numbers = NumberBuffer.of(inputs[0].numpy_dtype())
        return None if numbers is None else cls(inputs[0], numbers)

    def read(self, body: bytes) -> tuple[str, Tensor] | None:
        """The key (`instances` or `inputs`) and its tensor, or None where the exact way must look at the body."""
        structure = body.translate(None, NUMBER_AND_SPACE)
        sight = remembered_outline if len(structure) <= REMEMBERED_BYTES else outline
        found = sight(structure, self.spec.shape)
        if found is None:
            return None
        values = self.values(body, found)
        return None if values is None else (found.key, values)

    def values(self, body: bytes, found: Outline) -> Tensor | None:
        """The numbers of a body whose structure is `found`, if it is valid JSON and they fit the dtype."""
        try:
            document = parsed(body)
            if found.names_signature and document["signature_name"] != "serving_default":
                return None
            values = self.numbers.values(document[found.key])
        except ERRORS:
            return None
        # `[]` and `[1]` have one structure: only the count tells an empty list from a list of one.
        return None if values is None or values.size != found.size else values.reshape(found.shape)


def outline(structure: bytes, expected: tuple[int | None, ...]) -> Outline | None:
    """What a body's structure says, if it is a full grid of the expected shape under one of the two keys."""
    start, stop = structure.find(b"["), structure.rfind(b"]") + 1
    meaning = FRAMES.get(structure[:start] + structure[stop:])
    if meaning is None or start < 0:
        return None
    shape = grid_shape(structure[start:stop], len(expected))
    return Outline(*meaning, shape, math.prod(shape)) if shape is not None and fits(shape, expected) else None


remembered_outline = lru_cache(maxsize=REMEMBERED_OUTLINES)(outline)


def grid_shape(lists: bytes, rank: int) -> tuple[int, ...] | None:
    """The shape of nested lists of which only brackets and commas are left; None if they are ragged or of another rank.

    The first list of each level tells its length; then the whole text must equal the grid that these lengths make.
    """
    grid = b""
    sizes: list[int] = []
    for level in range(1, rank + 1):
        start = rank - level
        stop = lists.find(b"]" * level, start) + level
        sizes.append((stop - start - 1) // (len(grid) + 1))
        grid = b"[" + b",".join([grid] * sizes[-1]) + b"]"
    return tuple(reversed(sizes)) if grid == lists else None


def fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    """Whether a shape of the same rank is one that the signature allows; a dimension without values is none."""
    return all(size == want or (want is None and size > 0) for size, want in zip(shape, expected, strict=True))
