"""The bundle's model in LiteRT."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def load(folder: Path, signature: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A function from inputs to outputs, both by the names of the signature."""
    interpreter = Interpreter(model_path=str(folder / "model.tflite"))
    run = interpreter.get_signature_runner("serving_default")
    inputs = named(signature["inputs"], run.get_input_details())
    outputs = named(signature["outputs"], run.get_output_details())

    def predict(tensors: dict[str, Any]) -> dict[str, Any]:
        values = run(**{theirs: np.asarray(tensors[ours], dtype) for ours, theirs, dtype in inputs})
        return {ours: values[theirs] for ours, theirs, _ in outputs}

    return predict


def named(specs: list[dict[str, Any]], known: Iterable[str]) -> list[tuple[str, str, str]]:
    """The signature's name of each tensor, LiteRT's, and the type; outputs may be called by their positions there."""
    theirs = list(known)
    if {spec["name"] for spec in specs} != set(theirs) and len(theirs) > 1:
        theirs = [f"output_{position}" for position in range(len(specs))]
    elif len(theirs) > 1:
        theirs = [spec["name"] for spec in specs]
    return [(spec["name"], name, spec["dtype"]) for spec, name in zip(specs, theirs, strict=True)]
