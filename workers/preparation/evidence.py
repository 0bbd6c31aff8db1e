"""Further samples of a proof: many seeded ones, and those that administrators uploaded for the model."""

from __future__ import annotations

import contextlib
import math
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_store import golden
from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec
from workers.errors import PredictionFailed
from workers.preparation import parity
from workers.preparation.proof import SEVERAL, Reference
from workers.preparation.samples import Samples
from workers.preparation.uploads import Upload

# Agreement of a hundredth is not to be seen in eleven instances.
MANY = 64
MANY_BYTES = 64 * 1024**2
# Of what was uploaded no more than this is read.
UPLOADED_BYTES = 64 * 1024**2
UPLOADED_INSTANCES = 1024
SUFFIX = ".npy"
HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}

Pair = tuple[Tensors, Tensors]


@dataclass(frozen=True, slots=True)
class Example:
    """The example that came with an upload, as an archive of samples, and its pairs with the model's own outputs."""

    archive: bytes
    instances: int
    pairs: tuple[Pair, ...]


class SamplesUnfit(Exception):
    """Uploaded samples that say nothing about this version; the message says why."""


def seeded(upload: Upload, known: Reference) -> Iterator[Pair]:
    """Many more instances with the model's own outputs, between 0 and 1, and around 0 where it takes those.

    Raises RunnerFailed.
    """
    count = _fitting(known.samples, MANY) if known.signature.batched else 1
    for normal in (False, True):
        with contextlib.suppress(PredictionFailed):
            for inputs in _pieces(known.samples.draw(count, normal=normal), known):
                outputs = upload.reference(inputs)
                if parity.misfit(known.signature, inputs, outputs) is None:
                    yield inputs, outputs


def uploaded(upload: Upload, known: Reference, inputs: Tensors) -> Iterator[Pair]:
    """Uploaded inputs with the model's own outputs. Raises SamplesUnfit where the model fails, RunnerFailed."""
    for piece in _pieces(inputs, known):
        try:
            outputs = upload.reference(piece)
        except PredictionFailed as error:
            raise SamplesUnfit(f"the model fails on them: {error.message}") from error
        if reason := parity.misfit(known.signature, piece, outputs):
            raise SamplesUnfit(reason)
        yield piece, outputs


def brought(upload: Upload, known: Reference) -> Example | None:
    """What came with the upload, if anything did. Raises SamplesUnfit, RunnerFailed."""
    inputs = upload.example(known.signature)
    if inputs is None:
        return None
    if not all(spec.batched for spec in known.signature.inputs):
        raise SamplesUnfit("an input has no free first dimension, so that it is not of instances")
    pairs = tuple(uploaded(upload, known, inputs))
    try:
        return Example(golden.packed_inputs(inputs), len(next(iter(inputs.values()))), pairs)
    except golden.GoldenInvalid as error:
        raise SamplesUnfit(str(error)) from error


def read(path: Path, signature: Signature) -> Tensors:
    """The inputs in an npz archive, of so many instances from its beginning as are taken; other arrays are left out.

    Raises SamplesUnfit where they are not the inputs of this signature.
    """
    budget = UPLOADED_BYTES // len(signature.inputs)
    try:
        with zipfile.ZipFile(path) as archive:
            found = {spec.name: _fitted(_beginning(archive, spec.name, budget), spec) for spec in signature.inputs}
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, zlib.error) as error:
        raise SamplesUnfit(f"they are no arrays: {type(error).__name__}") from error
    count = min(len(tensor) for tensor in found.values())
    if not count or (not signature.batched and {len(tensor) for tensor in found.values()} != {count}):
        raise SamplesUnfit("they are not of the same number of instances")
    return {name: tensor[:count] for name, tensor in found.items()}


def _beginning(archive: zipfile.ZipFile, name: str, budget: int) -> Tensor:
    """The first rows of an array, as many as the budget of bytes allows: the archive may hold a gigabyte."""
    try:
        member = archive.open(f"{name}{SUFFIX}")
    except KeyError:
        raise SamplesUnfit(f"they have no input {name}") from None
    with member:
        read_header = HEADERS.get(np.lib.format.read_magic(member))
        if read_header is None:
            raise SamplesUnfit(f"{name} is of a newer form of arrays")
        shape, by_columns, dtype = read_header(member)
        if dtype.hasobject or not shape or (by_columns and len(shape) > 1):
            raise SamplesUnfit(f"{name} is not an array of plain values, row by row")
        row_bytes = max(1, math.prod(shape[1:]) * dtype.itemsize)
        rows = min(shape[0], UPLOADED_INSTANCES, budget // row_bytes)
        data = member.read(rows * row_bytes)
    # Made of what was read, not of what the header claims: that may be any size.
    array: Tensor = np.frombuffer(data, dtype).reshape(rows, *shape[1:])
    return array


def _fitted(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """The array in the dtype of an input, where it has its shape."""
    if tensor.ndim != len(spec.shape) or any(
        size not in (None, actual) for size, actual in zip(spec.shape, tensor.shape, strict=True)
    ):
        raise SamplesUnfit(f"{spec.name} has the shape {tensor.shape}, not {spec.shape}")
    if spec.dtype == STRING:
        if tensor.dtype.kind not in "SU":
            raise SamplesUnfit(f"{spec.name} is {tensor.dtype}, not texts")
        texts = np.empty(tensor.shape, object)
        texts.reshape(-1)[:] = [text if isinstance(text, bytes) else str(text).encode() for text in tensor.ravel()]
        return texts
    wanted = spec.numpy_dtype()
    if not np.can_cast(tensor.dtype, wanted, "same_kind"):
        raise SamplesUnfit(f"{spec.name} is {tensor.dtype}, not {wanted}")
    return tensor.astype(wanted)


def _fitting(samples: Samples, most: int) -> int:
    return max(1, min(most, MANY_BYTES // max(1, samples.bytes_of(1))))


def _pieces(inputs: Tensors, known: Reference) -> Iterator[Tensors]:
    """As many instances at a time as the model has answered before: with 64 images, one took all memory it may have."""
    count = len(next(iter(inputs.values())))
    rows = SEVERAL if known.signature.batched else count
    for begin in range(0, count, rows):
        yield {name: tensor[begin : begin + rows] for name, tensor in inputs.items()}
