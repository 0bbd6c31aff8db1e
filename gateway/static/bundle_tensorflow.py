"""The bundle's model in TensorFlow; the SavedModel is unpacked beside this file."""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow


def load(folder: Path, signature: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from inputs to outputs, both by the names of the signature; texts are arrays of bytes."""
    with tarfile.open(folder / "savedmodel.tar") as packed:
        packed.extractall(folder / "savedmodel", filter="data")
    model = tensorflow.saved_model.load(str(folder / "savedmodel"))
    run = model.signatures["serving_default"]
    specs = run.structured_input_signature[1]
    inputs = named(signature["inputs"], specs)
    outputs = named(signature["outputs"], run.structured_outputs)

    def predict(tensors: dict[str, Any], _kept: object = model) -> dict[str, Any]:
        values = run(**{theirs: tensorflow.constant(tensors[ours], specs[theirs].dtype) for ours, theirs in inputs})
        return {
            ours: np.asarray(values[theirs].numpy(), "S" if values[theirs].dtype == tensorflow.string else None)
            for ours, theirs in outputs
        }

    return predict


def named(specs: list[dict[str, Any]], known: Iterable[str]) -> list[tuple[str, str]]:
    """The signature's name of each tensor and TensorFlow's; outputs may be called by their positions there."""
    ours, theirs = [spec["name"] for spec in specs], list(known)
    if set(ours) != set(theirs) and len(theirs) > 1:
        theirs = [f"output_{position}" for position in range(len(ours))]
    elif len(theirs) > 1:
        theirs = ours
    return list(zip(ours, theirs, strict=True))
