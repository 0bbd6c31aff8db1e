"""Occlusion: copies of an instance with a part of one input taken away, and what the score's fall says of that part.

A part is a patch of an image, a stretch of a series, one feature of a table, or one word of a text. Source: Zeiler and
Fergus, "Visualizing and Understanding Convolutional Networks", section 4.2.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from model_store.signature import STRING, Tensor, TensorSpec
from workers.protocols.errors import excerpt, invalid, shown_name
from workers.protocols.explain_options import ExplainOptions
from workers.protocols.json_tensors import Place, tensor_of

Falls = npt.NDArray[np.float64]
Window = tuple[slice, ...]

# How many parts a default patch makes, at most: of an image, and of a series or a table.
PARTS_OF_IMAGE = 64
PARTS_OF_SERIES = 256
CHANNELS = (1, 3)
# Their words are cut out one by one, of which none may be more than a byte long.
MOST_TEXT_BYTES = 1024**2
WORD = re.compile(rb"\S+")


class Parts(Protocol):
    """The parts of one input, of every instance of a request."""

    def count(self, instance: int) -> int:
        """How many parts an instance has, each of which is taken away in a copy of its own."""

    def take_away(self, copies: Tensor, instance: int) -> None:
        """Takes one part away from each of `copies`, `count` equal copies of the instance."""

    def attributions(self, instance: int, falls: Falls) -> Falls:
        """What each value, or each word, contributed: by how much the score fell without it."""

    def words(self, instance: int) -> list[str] | None:
        """The words that the attributions are about, of a text."""

    def put_bytes(self, instance: int) -> int:
        """How long the texts are that take parts' places in all copies of an instance; numbers take no room of their
        own."""


@dataclass(frozen=True, slots=True)
class Patches:
    """Parts of an array, alike in all instances: windows of these `sides` cover it, each value once."""

    shape: tuple[int, ...]
    sides: tuple[int, ...]
    baseline: Tensor

    def count(self, instance: int) -> int:  # noqa: ARG002 - all instances of an array have the same parts
        return math.prod(-(-size // side) for size, side in zip(self.shape, self.sides, strict=True))

    def windows(self) -> Iterator[Window]:
        """In the order of the rows; made when they are asked for, since who only counts needs none."""
        starts = [range(0, size, side) for size, side in zip(self.shape, self.sides, strict=True)]
        for corner in itertools.product(*starts):
            yield tuple(slice(start, start + side) for start, side in zip(corner, self.sides, strict=True))

    def take_away(self, copies: Tensor, instance: int) -> None:  # noqa: ARG002 - as above
        for copy, window in enumerate(self.windows()):
            copies[copy, ...][window] = self.baseline[window]

    def heat(self, falls: Falls) -> Falls:
        """The attributions as an array of the instance's shape."""
        found = np.zeros(self.shape)
        for window, fall in zip(self.windows(), falls, strict=True):
            found[window] = fall
        return found

    def attributions(self, instance: int, falls: Falls) -> Falls:  # noqa: ARG002 - as above
        return self.heat(falls)

    def words(self, instance: int) -> list[str] | None:  # noqa: ARG002 - as above
        return None

    def put_bytes(self, instance: int) -> int:  # noqa: ARG002 - as above
        return sum(map(len, self.baseline.reshape(-1).tolist())) if self.baseline.dtype == object else 0


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a text, which white space separates: `found` are those of each instance."""

    found: tuple[tuple[bytes, ...], ...]
    replacement: tuple[bytes, ...]

    def count(self, instance: int) -> int:
        return len(self.found[instance])

    def take_away(self, copies: Tensor, instance: int) -> None:
        words, flat = self.found[instance], copies.reshape(-1)
        for place in range(len(words)):
            flat[place] = b" ".join((*words[:place], *self.replacement, *words[place + 1 :]))

    def attributions(self, instance: int, falls: Falls) -> Falls:  # noqa: ARG002 - one a word
        return falls

    def words(self, instance: int) -> list[str] | None:
        return [word.decode(errors="replace") for word in self.found[instance]]

    def put_bytes(self, instance: int) -> int:
        return self.count(instance) * sum(map(len, self.replacement))


def parts_of(spec: TensorSpec, tensor: Tensor, options: ExplainOptions) -> Parts:
    """The parts of one input, whose instances are `tensor`; raises InputInvalid."""
    shape = tensor.shape[1:]
    if spec.dtype == STRING and math.prod(shape) == 1:
        return _words(tensor, options.baseline)
    return Patches(shape, _sides(shape, options.patch), _baseline(spec, shape, options.baseline))


def _words(tensor: Tensor, baseline: object) -> Words:
    if baseline is not None and not isinstance(baseline, str):
        raise invalid(f"explain.baseline of a text is a word that takes another one's place, not {excerpt(baseline)}")
    texts = tuple(bytes(text) for text in tensor.reshape(-1).tolist())
    if sum(map(len, texts)) > MOST_TEXT_BYTES:
        raise invalid(f"explain: texts of more than {MOST_TEXT_BYTES} bytes in all are not explained at once")
    replacement = () if not baseline else (baseline.encode(errors="replace"),)
    return Words(tuple(tuple(WORD.findall(text)) for text in texts), replacement)


def image_axes(shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Which dimensions of an instance are an image's rows and columns; None where it is none."""
    if len(shape) == 2:
        return 0, 1
    if len(shape) != 3:
        return None
    return (1, 2) if shape[0] in CHANNELS and shape[2] not in CHANNELS else (0, 1)


def _sides(shape: tuple[int, ...], patch: tuple[int, int] | None) -> tuple[int, ...]:
    """The length of a part in each dimension; raises InputInvalid beyond images.

    An instance of three dimensions is an image, whose channels are taken away together.
    """
    axes = image_axes(shape)
    if axes is not None:
        found = list(shape)
        chosen = patch or _default_patch([shape[axis] for axis in axes])
        for axis, side in zip(axes, chosen, strict=True):
            found[axis] = min(side, shape[axis])
        return tuple(found)
    if len(shape) > 1:
        raise invalid(f"explain: instances of {len(shape)} dimensions cannot be explained; at most 3 are an image")
    if not shape:
        return ()
    return (min(shape[0], patch[0] if patch else -(-shape[0] // PARTS_OF_SERIES)),)


def _default_patch(sizes: Sequence[int]) -> tuple[int, int]:
    """Square patches of which no more than PARTS_OF_IMAGE cover rows and columns."""
    side = max(1, math.isqrt(math.prod(sizes) // PARTS_OF_IMAGE))
    while math.prod(-(-size // side) for size in sizes) > PARTS_OF_IMAGE:
        side += 1
    return side, side


def _baseline(spec: TensorSpec, shape: tuple[int, ...], asked: object) -> Tensor:
    """What takes a part's place: one value for all, or an instance; zeros, and empty texts, where nothing is said."""
    if asked is None:
        return np.full(shape, b"" if spec.dtype == STRING else 0, spec.numpy_dtype())
    wanted: tuple[int | None, ...] = shape if isinstance(asked, list) else ()
    value = tensor_of(asked, TensorSpec(spec.name, spec.dtype, wanted), Place("explain.baseline"))
    found: Tensor = np.broadcast_to(value, shape)
    return found


def require_one_input(asked: object, explained: Sequence[TensorSpec]) -> None:
    """Raises InputInvalid for an array as the baseline of several inputs, of which it could be only one's."""
    if asked is not None and len(explained) > 1:
        names = ", ".join(shown_name(spec.name) for spec in explained)
        raise invalid(f"explain.baseline and explain.patch belong to one input: say explain.input, one of {names}")
