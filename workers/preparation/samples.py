"""Seeded random inputs drawn from a signature, within what the model's first layers take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec

# Integers without a known range: most layers that read integers take these, as classes, lengths or positions.
INTEGERS_BELOW = 4
WORDS = ("the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog", "Zürich", "42", "unheard-of")
LONGEST_TEXT = 8
TEXT_BYTES = 1024


@dataclass(frozen=True, slots=True)
class Range:
    """What sensible values of one input are: integers `below` a bound, one of `choices`, or texts made of `words`."""

    below: int | None = None
    choices: tuple[int | str | bytes, ...] = ()
    words: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Range:
        return cls(row.get("below"), tuple(row.get("choices", ())), tuple(row.get("words", ())))


@dataclass(frozen=True, slots=True)
class Samples:
    """Draws inputs for a signature; `free_size` stands for every free dimension but the batch."""

    signature: Signature
    ranges: Sequence[Range]
    free_size: int
    random: np.random.Generator = field(repr=False)

    def draw(self, batch: int, *, normal: bool = False) -> Tensors:
        """Inputs by name with `batch` instances; floats between 0 and 1, or, where `normal`, around 0."""
        return {
            spec.name: self._tensor(spec, limits, batch, normal)
            for spec, limits in zip(self.signature.inputs, self.ranges, strict=True)
        }

    def bytes_of(self, batch: int) -> int:
        """How large a draw would be, of any shape; a text counts as 1 KiB, for it takes as long to make."""
        return sum(
            math.prod(self._shape(spec, batch)) * (TEXT_BYTES if spec.dtype == STRING else spec.numpy_dtype().itemsize)
            for spec in self.signature.inputs
        )

    def _shape(self, spec: TensorSpec, batch: int) -> tuple[int, ...]:
        sizes = [self.free_size if size is None else size for size in spec.shape]
        return (batch, *sizes[1:]) if spec.batched else tuple(sizes)

    def _tensor(self, spec: TensorSpec, limits: Range, batch: int, normal: bool) -> Tensor:
        shape = self._shape(spec, batch)
        if spec.dtype == STRING:
            return self._texts(shape, limits)
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "b":
            return self.random.integers(0, 2, shape).astype(bool)
        if dtype.kind == "f":
            return (self.random.standard_normal(shape) if normal else self.random.random(shape)).astype(dtype)
        if limits.choices:
            return self.random.choice(np.array(limits.choices), shape).astype(dtype)
        below = limits.below or (256 if dtype == np.uint8 else INTEGERS_BELOW)
        return self.random.integers(0, min(below, np.iinfo(dtype).max), shape).astype(dtype)

    def _texts(self, shape: tuple[int, ...], limits: Range) -> Tensor:
        texts = np.empty(shape, object)
        flat = texts.reshape(-1)
        for index in range(flat.size):
            if limits.choices:
                text = limits.choices[self.random.integers(len(limits.choices))]
            else:
                known = [*limits.words, *WORDS]
                text = " ".join(self.random.choice(known, self.random.integers(1, LONGEST_TEXT + 1)).tolist())
            flat[index] = text if isinstance(text, bytes) else str(text).encode()
        return texts


def repeated(tensors: Tensors, batch: int) -> Tensors:
    """Batched inputs with their instances repeated until there are `batch`."""
    return {name: np.resize(tensor, (batch, *tensor.shape[1:])) for name, tensor in tensors.items()}
