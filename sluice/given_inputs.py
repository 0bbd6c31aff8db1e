"""What callers give to `predict`, as requests. What it is decides how it is sent, and nothing else does:

| given | sent as |
|---|---|
| an array, a list of arrays (stacked), a dict of arrays by input | binary tensors |
| a `str`, or a list of them: texts | binary tensors |
| a `Path`, or `bytes`: one image, recording or text file | the file as it is, with its content type |
| any other list or dict | JSON: `instances`, or `inputs` by name |

In JSON, a `Path` or `bytes` stands for a file's bytes, and an array for its values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from sluice.answers import FileUnknown
from sluice.binary_tensors import encode
from sluice.described_model import STRING, ModelDescription, Tensor, fitted
from sluice.exchange import JSON_TYPE, Asked, encode_json
from sluice.targets import Target, Verb

Given: TypeAlias = (
    npt.ArrayLike | Mapping[str, npt.ArrayLike] | Sequence[Mapping[str, object]] | Sequence[object] | Path | bytes | str
)

_FILES = (Path, bytes, bytearray)
# How files of each kind begin.
_BEGINNINGS = (
    (0, b"\x89PNG\r\n\x1a\n", "image/png"),
    (0, b"\xff\xd8\xff", "image/jpeg"),
    (8, b"WEBP", "image/webp"),
    (8, b"WAVE", "audio/wav"),
    (0, b"fLaC", "audio/flac"),
)


def request_of(
    target: Target, given: Given, description: ModelDescription | None, outputs: Sequence[str] | None, verb: Verb
) -> Asked:
    """The request for a prediction; as bytes, `outputs` or all of them are asked for, and the verb is the caller's.

    Without a description, as for a client that may not see it, arrays go as JSON. Raises FileUnknown, OSError, and
    TypeError for what has no form.
    """
    if isinstance(given, _FILES):
        content = given.read_bytes() if isinstance(given, Path) else bytes(given)
        shown = given if isinstance(given, Path) else None
        return Asked("POST", f"{target.path}:{verb}", content, {"Content-Type": content_type(content, shown)})
    tensors = None if description is None else tensors_of(given, description)
    if tensors is not None:
        body, headers = encode(tensors, outputs)
        return Asked("POST", target.infer_path, body, headers)
    document = {"inputs": given} if isinstance(given, Mapping) else {"instances": _rows(given)}
    return Asked("POST", f"{target.path}:{verb}", encode_json(document), JSON_TYPE)


def is_tensor(given: Given) -> bool:
    """Whether it is sent as binary tensors where the model's description is known."""
    if isinstance(given, Mapping):
        return any(map(_is_array, given.values())) and not any(map(_holds_files, given.values()))
    if isinstance(given, list | tuple):
        return bool(given) and (all(map(_is_array, given)) or _are_texts(given))
    return isinstance(given, str) or _is_array(given)


def tensors_of(given: Given, description: ModelDescription) -> dict[str, Tensor] | None:
    """The inputs by name, with the elements that the model takes where they can be had; None for what goes as JSON."""
    inputs = description.inputs
    if not is_tensor(given):
        return None
    if isinstance(given, Mapping):
        return {
            str(name): fitted(_array(value), inputs[name].dtype) if name in inputs else _array(value)
            for name, value in given.items()
        }
    if len(inputs) != 1:
        return None
    ((name, taken),) = inputs.items()
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list | tuple) and _are_texts(given):
        if taken.dtype != STRING:
            return None
        tensor = np.array(given, object)
    else:
        stacked = np.stack([np.asarray(element) for element in given]) if isinstance(given, list | tuple) else given
        tensor = fitted(np.asarray(stacked), taken.dtype)
    if taken.dtype == STRING and tensor.ndim == 1:
        # One text for each instance, in as many dimensions as the model has them.
        tensor = tensor.reshape((len(tensor),) + (1,) * (len(taken.shape) - 1))
    return {name: tensor}


def content_type(content: bytes, path: Path | None) -> str:
    """What a file is, by how it begins; by its name only that it is a text. Raises FileUnknown."""
    for start, beginning, kind in _BEGINNINGS:
        if content.startswith(beginning, start) and (start == 0 or content.startswith(b"RIFF")):
            return kind
    if path is not None and path.suffix.lower() == ".txt":
        return "text/plain"
    raise FileUnknown(f"{path or 'these bytes'}: no PNG, JPEG, WebP, WAV or FLAC file, and not named .txt")


def _is_array(value: object) -> bool:
    return hasattr(value, "__array__")


def _array(value: object) -> Tensor:
    found: Tensor = np.asarray(value)
    if found.dtype.kind in "SU" and not _is_array(value):
        # NumPy's own texts lose the zero bytes that they end with.
        return np.array(value, object)
    return found


def _holds_files(value: object) -> bool:
    return isinstance(value, _FILES) or (isinstance(value, list | tuple) and any(map(_holds_files, value)))


def _are_texts(elements: Sequence[object]) -> bool:
    return all(isinstance(element, str) for element in elements)


def _rows(given: object) -> object:
    if isinstance(given, str):
        return [given]
    if isinstance(given, Iterable) and not _is_array(given):
        return list(given)
    return given
