"""Random tensors that fit a model, for those who have no input at hand."""

from __future__ import annotations

import numpy as np

from sluice.answers import Json
from sluice.described_model import STRING, Tensor, TensorDescription, numpy_dtype, read_description

SEED = 0
# What a dimension of any size but the first gets: long enough for a sequence, short enough for everything else.
FREE_SIZE = 4


def random_tensors(metadata: Json, instances: int) -> dict[str, Tensor]:
    """A tensor for each input that TensorFlow Serving's metadata name, the same ones each time.

    Floats are between 0 and 1, integers 0 or 1, texts a few words.
    """
    numbers = np.random.default_rng(SEED)
    return {name: _one(spec, instances, numbers) for name, spec in read_description(metadata).inputs.items()}


def _one(spec: TensorDescription, instances: int, numbers: np.random.Generator) -> Tensor:
    first = [instances if size is None else size for size in spec.shape[:1]]
    shape = tuple(first + [FREE_SIZE if size is None else size for size in spec.shape[1:]])
    if spec.dtype == STRING:
        return np.full(shape, "a few words to read", object)
    drawn = numbers.random(shape)
    return (drawn if np.issubdtype(numpy_dtype(spec.dtype), np.floating) else drawn.round()).astype(spec.dtype)
