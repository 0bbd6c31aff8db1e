"""Hand-made `.keras` archives and configurations, honest and hostile; no TensorFlow needed."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

METADATA = b'{"keras_version": "3.15.1", "date_saved": "2026-01-01@00:00:00"}'

Json = dict[str, Any]


def layer(class_name: str, module: str = "keras.layers", **config: object) -> Json:
    """A layer as Keras writes it."""
    return {
        "module": module,
        "class_name": class_name,
        "config": {"name": class_name.lower(), **config},
        "registered_name": None,
    }


def sequential(*layers: Json) -> Json:
    """A Sequential model over four floats."""
    inputs = layer("InputLayer", batch_shape=[None, 4], dtype="float32", sparse=False, ragged=False)
    config = {"name": "sequential", "trainable": True, "layers": [inputs, *layers], "build_input_shape": [None, 4]}
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": config,
        "registered_name": None,
        "build_config": {"input_shape": [None, 4]},
        "compile_config": {"optimizer": "adam"},
    }


def dense(units: object = 3, **config: object) -> Json:
    return layer("Dense", units=units, **{"activation": "relu", **config})


def write_archive(
    path: Path,
    config: object,
    *,
    weights: bytes = b"\x89HDF\r\n\x1a\n",
    method: int = zipfile.ZIP_STORED,
    more: Mapping[str, bytes] | None = None,
) -> Path:
    """An archive with this configuration (text as it is, else as JSON) and `more` members by name."""
    text = config if isinstance(config, bytes) else json.dumps(config).encode()
    members = {"metadata.json": METADATA, "config.json": text, "model.weights.h5": weights, **(more or {})}
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path
