"""Explanations in the Python client: what each part of an instance did to its score, as arrays and pictures."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sluice.answers import FileUnknown, Json, Unreachable
from sluice.described_model import ModelDescription, Tensor
from sluice.given_inputs import Given, tensors_of


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Of one instance: what the score of one class falls by without each part, by input.

    An array of attributions has the shape of the instance; of a text there is one number for each of its `words`.
    `overlays` are PNG files, of inputs that are images. `class_number` is the place of the value in the output.
    """

    method: str
    output: str
    class_number: int
    class_name: str | None
    score: float
    attributions: Mapping[str, Tensor]
    words: Mapping[str, Sequence[str]]
    overlays: Mapping[str, bytes]


def texts_of(given: object) -> list[str] | None:
    """The texts that a text, a list of them, or a file named .txt stands for. Raises FileUnknown, OSError."""
    if isinstance(given, Path) and given.suffix.lower() == ".txt":
        try:
            return [given.read_text("utf-8-sig")]
        except UnicodeDecodeError as error:
            raise FileUnknown(f"{given}: no text in UTF-8") from error
    found = [given] if isinstance(given, str) else given
    return found if isinstance(found, list) and found and all(isinstance(one, str) for one in found) else None


def explain_document(
    given: Given, options: Mapping[str, object] | None, description: ModelDescription | None = None
) -> dict[str, object]:
    """The body of a request for explanations of whatever `predict` takes, with options beside it.

    Texts get as many dimensions as the model's input has, where its description is known.
    """
    texts = texts_of(given)
    tensors = None if texts is None or description is None else tensors_of(texts, description)
    if tensors is not None:
        (tensor,) = tensors.values()
        document: dict[str, object] = {"instances": tensor.tolist()}
    elif isinstance(given, Mapping):
        document = {"inputs": dict(given)}
    else:
        # A text or a file stands for one instance, as it does for a prediction.
        alone = isinstance(given, str | bytes) or hasattr(given, "read_bytes")
        document = {"instances": [given] if alone else given}
    return document if options is None else {**document, "explain": dict(options)}


def read_explanations(document: Json) -> list[Explanation]:
    """One explanation for each instance. Raises Unreachable where it is no such answer."""
    try:
        return [_explanation(found) for found in document["explanations"]]
    except (KeyError, TypeError, ValueError) as error:
        raise Unreachable(f"the answer is not one of explanations: {error}") from error


def _explanation(found: Json) -> Explanation:
    return Explanation(
        found["method"],
        found["output"],
        found["class"],
        found.get("class_name"),
        found["score"],
        {name: np.array(values, np.float64) for name, values in found["attributions"].items()},
        found.get("words", {}),
        {name: base64.b64decode(picture["b64"]) for name, picture in found.get("overlays", {}).items()},
    )
