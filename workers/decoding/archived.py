"""Commands of the child: recordings and texts out of a zip archive, a batch at a time, as instances of an input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec
from workers.decoding.given import AUDIO, READERS
from workers.decoding.recordings import RecordingUnfit
from workers.decoding.rows import without
from workers.decoding.texts import TEXT_BYTES, TextUnfit, text_of
from workers.decoding.zip_members import FILE_BYTES, Members, MemberUnfit, open_members, told

HELD = "archived"


@dataclass(slots=True)
class Open:
    """An archive that is being read, and how a file of it becomes an instance of `spec`, whose sizes are known."""

    members: Members
    spec: TensorSpec
    read: Callable[[bytes], Tensor | bytes]
    most_bytes: int


def open_recordings(
    held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors
) -> tuple[dict[str, Any], Tensors]:
    """Opens the zip archive `file`, in the current folder; answers how many `rows`, which are its files, it has.

    Raises UploadRefused: recordings_unfit, format_unavailable, and what `open_members` does.
    """
    [spec] = Signature.from_json(arguments["signature"]).inputs
    read = READERS[AUDIO](spec, arguments["specification"])
    return _opened(held, Open(_members(arguments), spec, read, FILE_BYTES))


def open_texts(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """The same of texts, for an input of strings."""
    [spec] = Signature.from_json(arguments["signature"]).inputs
    specification = arguments["specification"]

    def read(content: bytes) -> bytes:
        return text_of(content, specification)

    return _opened(held, Open(_members(arguments), spec, read, TEXT_BYTES))


def read_rows(held: dict[str, Any], arguments: dict[str, Any], _tensors: Tensors) -> tuple[dict[str, Any], Tensors]:
    """Files from `start` on, at most `batch_rows`, and fewer where they have more than `batch_bytes` together.

    Answers their number `rows`, what is `wrong` with some, and a tensor.
    """
    found: Open = held[HELD]
    start = arguments["start"]
    rows: list[Tensor | bytes] = []
    wrong: dict[int, str] = {}
    size_bytes = 0
    for row, member in enumerate(found.members.files[start : start + arguments["batch_rows"]]):
        try:
            rows.append(found.read(found.members.content(member, found.most_bytes)))
        except (MemberUnfit, RecordingUnfit, TextUnfit) as error:
            wrong[row] = told(member, error)
        else:
            last = rows[-1]
            size_bytes += len(last) if isinstance(last, bytes) else last.nbytes
        if size_bytes >= arguments["batch_bytes"]:
            break
    return without(len(rows) + len(wrong), wrong, {found.spec.name: _joined(rows, found.spec)})


def _members(arguments: dict[str, Any]) -> Members:
    return open_members(arguments["file"], arguments["most_rows"])


def _opened(held: dict[str, Any], found: Open) -> tuple[dict[str, Any], Tensors]:
    held[HELD] = found
    return {"rows": len(found.members.files)}, {}


def _joined(rows: list[Tensor | bytes], spec: TensorSpec) -> Tensor:
    sizes = [size or 1 for size in spec.shape[1:]]
    found = np.empty((len(rows), *sizes), spec.numpy_dtype())
    if spec.dtype == STRING:
        found.reshape(-1)[:] = rows
    elif rows:
        found[:] = rows
    return found
