"""Archives of samples (`.npz`): read a piece at a time and checked against a version's signature, never unpickled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model_store.signature import Signature, Tensor, Tensors, TensorSpec
from workers.files.contract import Asked, ChunkSize, FileInvalid
from workers.files.npz import NumpyArchive, opened, readable, rows_of
from workers.files.row_lines import UniformRows
from workers.protocols.contract import Contract

LABELS = "labels"
ARCHIVE_BYTES = 256 * 1024**2
# What an archive of that size may unpack to.
UNPACKED_BYTES = 1024**3
MOST_INSTANCES = 1_000_000
PIECE_BYTES = 4 * 1024**2
# One sample is read at once, into a gateway's memory; golden samples have the same limit.
ROW_BYTES = 16 * 1024**2


@dataclass(frozen=True, slots=True)
class Piece:
    """Samples that follow each other: `inputs` by name, and for each its class, where they are labelled."""

    inputs: Tensors
    labels: Tensor | None


def pieces(path: Path, signature: Signature, *, labelled: bool, rows: int = MOST_INSTANCES) -> Iterator[Piece]:
    """The samples of an archive, at most `rows` at a time and 4 MiB unless one alone is larger.

    `inputs` have the dtypes of the signature, `labels` are int64. Raises FileInvalid.
    """
    contract = _contract(signature, labelled=labelled)
    archive = NumpyArchive()
    with path.open("rb") as file:
        size = ChunkSize(rows, PIECE_BYTES, ROW_BYTES)
        for chunk in archive.chunks(file, contract, size, None):
            assert isinstance(chunk.data, bytes)  # noqa: S101 - this format's chunks are no spans
            (found,) = archive.pieces(Asked(chunk.first_row, chunk.rows, chunk.data, chunk.terms), contract)
            assert isinstance(found, UniformRows)  # noqa: S101 - nor are its rows read one by one
            tensors = dict(found.tensors)
            labels = tensors.pop(LABELS) if labelled else None
            yield Piece(tensors, labels)


def read(path: Path, signature: Signature, most_instances: int) -> Tensors:
    """At most so many unlabelled samples, as one tensor for each input. Raises FileInvalid."""
    gathered: list[Tensors] = []
    left = most_instances
    for piece in pieces(path, signature, labelled=False, rows=most_instances):
        gathered.append({name: tensor[:left] for name, tensor in piece.inputs.items()})
        left -= len(next(iter(piece.inputs.values())))
        if left <= 0:
            break
    return {spec.name: np.concatenate([tensors[spec.name] for tensors in gathered]) for spec in signature.inputs}


def check(path: Path, signature: Signature, *, labelled: bool) -> int:
    """How many samples an archive has, each of which was read; raises FileInvalid where it does not fit."""
    with path.open("rb") as file, contextlib.ExitStack() as stack, readable():
        arrays = opened(stack, file, _contract(signature, labelled=labelled))
        total = rows_of(arrays)
        size_bytes = sum(head.row_bytes for _, head, _ in arrays) * total
    if not 0 < total <= MOST_INSTANCES:
        raise FileInvalid(f"the archive has {total} samples, but there are 1 to {MOST_INSTANCES}")
    if size_bytes > UNPACKED_BYTES:
        raise FileInvalid(f"the archive unpacks to {size_bytes} bytes, but {UNPACKED_BYTES} are taken")
    classes = classes_of(signature) if labelled else None
    for piece in pieces(path, signature, labelled=labelled):
        if piece.labels is not None and (piece.labels.min() < 0 or piece.labels.max() >= (classes or 2**31)):
            raise FileInvalid(f"labels are numbers of classes, from 0 to {(classes or 2**31) - 1}")
    return total


def _contract(signature: Signature, *, labelled: bool) -> Contract:
    inputs = signature.inputs
    if labelled:
        if any(spec.name == LABELS for spec in inputs):
            raise FileInvalid(f"the model has an input {LABELS!r} of its own: its samples cannot be labelled")
        inputs = (*inputs, TensorSpec(LABELS, "int64", (None,)))
    return Contract("", 0, Signature(inputs, signature.outputs), MOST_INSTANCES)


def classes_of(signature: Signature) -> int | None:
    """How many classes the first output tells apart; raises FileInvalid where it is no scores."""
    spec = signature.outputs[0]
    if len(spec.shape) != 2 or spec.dtype == "string":
        raise FileInvalid(f"output {spec.name!r} is no vector of scores for each instance: there are no classes")
    return spec.shape[1]
