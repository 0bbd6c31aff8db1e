"""The bundle's model in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


def load(folder: Path, signature: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from inputs to outputs, both by the names of the signature; texts are arrays of bytes."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    inputs = named(signature["inputs"], session.get_inputs())
    outputs = named(signature["outputs"], session.get_outputs())

    def predict(tensors: dict[str, Any]) -> dict[str, Any]:
        feed = {
            theirs: np.char.decode(tensors[ours].astype("S")).astype(object)
            if dtype == "string"
            else np.asarray(tensors[ours], dtype)
            for ours, theirs, dtype in inputs
        }
        values = session.run([theirs for _, theirs, _ in outputs], feed)
        return {
            ours: np.char.encode(value.astype("U")) if dtype == "string" else value
            for (ours, _, dtype), value in zip(outputs, values, strict=True)
        }

    return predict


def named(specs: list[dict[str, Any]], known: list[Any]) -> list[tuple[str, str, str]]:
    """The signature's name of each tensor, the graph's, and the type: by name, or else by position."""
    theirs = [argument.name for argument in known]
    same = {spec["name"] for spec in specs} == set(theirs)
    return [
        (spec["name"], spec["name"] if same else name, spec["dtype"]) for spec, name in zip(specs, theirs, strict=True)
    ]
