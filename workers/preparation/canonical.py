"""The canonical archive: what the gate understood of an upload, written anew; runs in a runner only.

Only this archive is ever given to Keras. The upload's own bytes, whatever else they hold, end here.
"""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from model_store.signature import Tensors
from workers.preparation import hdf5, legacy_weights, strict_json
from workers.preparation.findings import keras_findings, refused

# Files in a runner's folder, by which both sides know them.
UPLOAD, CONFIG, WEIGHTS, CANONICAL = "upload.h5", "config.json", "canonical.weights.h5", "canonical.keras"
MODEL_CONFIG = "model_config"
# State of the training: not part of what a model computes, and as large as twice its weights.
_TRAINING_STATE = ("optimizer",)
_METADATA = {"keras_version": "3.15.1", "date_saved": "1980-01-01@00:00:00"}
# The date of every member: the same model gives the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)


def rebuild_keras(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Writes the canonical archive from the validated configuration, the upload's datasets and its vocabularies.

    `arguments`: `limit_bytes`, and `assets`, the member's name of each vocabulary by its file's name. Answers
    `objects` and `weight_bytes`.
    """
    source = Path(UPLOAD)
    with hdf5.open_file(source) as file:
        contents = hdf5.check(file, source, arguments["limit_bytes"])
        with h5py.File(WEIGHTS, "w") as target:
            _copy(file, target, contents)
    _write_archive(arguments["assets"])
    source.unlink()
    return {"objects": len(contents.groups) + len(contents.datasets), "weight_bytes": contents.declared_bytes}, {}


def read_config(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Checks an uploaded `.h5` and writes the text of its `model_config` to config.json, for the parent to inspect.

    `arguments`: `limit_bytes`. Answers `objects` and `weight_bytes`.
    """
    source = Path(UPLOAD)
    with hdf5.open_file(source) as file:
        contents = hdf5.check(file, source, arguments["limit_bytes"])
        if MODEL_CONFIG not in file.attrs or legacy_weights.GROUP not in contents.groups:
            raise refused(
                "missing_member", "the file holds no whole model: save it with model.save(), not save_weights()"
            )
        text = file.attrs[MODEL_CONFIG]
    if not isinstance(text, (str, bytes)):
        raise refused("json_encoding", "not a text", MODEL_CONFIG)
    data = text.encode("utf-8", errors="surrogateescape") if isinstance(text, str) else text
    if len(data) > strict_json.SIZE_LIMIT_BYTES:
        raise refused("json_size", f"larger than {strict_json.SIZE_LIMIT_BYTES} bytes", MODEL_CONFIG)
    Path(CONFIG).write_bytes(data)
    return {"objects": len(contents.groups) + len(contents.datasets), "weight_bytes": contents.declared_bytes}, {}


def rebuild_h5(held: dict[str, Any], arguments: dict[str, Any], tensors: Tensors) -> tuple[dict[str, Any], Tensors]:  # noqa: ARG001 - a command's signature
    """Builds the model from the validated configuration, gives it the upload's weights and saves it canonically.

    `arguments`: `limit_bytes`. Keras's own reader of `.h5` files never sees the upload.
    """
    import keras

    source = Path(UPLOAD)
    config = json.loads(Path(CONFIG).read_bytes())
    with hdf5.open_file(source) as file:
        contents = hdf5.check(file, source, arguments["limit_bytes"])
        with keras_findings():
            model = keras.saving.deserialize_keras_object(config, safe_mode=True)
            legacy_weights.assign(model, file, set(contents.groups), set(contents.datasets))
            model.save(CANONICAL)
    source.unlink()
    return {}, {}


def _copy(source: h5py.File, target: h5py.File, contents: hdf5.Contents) -> None:
    for name in contents.groups:
        if not _belongs_to_training(name):
            group = target.require_group(name)
            label = source[name].attrs.get("name")
            if isinstance(label, str):
                group.attrs["name"] = label
    for name in contents.datasets:
        if not _belongs_to_training(name):
            values = source[name]
            try:
                copy = target.create_dataset(name, data=np.asarray(values))
            except hdf5.ERRORS as error:
                raise refused("h5_structure", f"cannot be read ({type(error).__name__})", name) from error
            if hdf5.is_bfloat16(values):
                copy.attrs["dtype"] = hdf5.BFLOAT16


def _belongs_to_training(name: str) -> bool:
    return name.partition("/")[0] in _TRAINING_STATE


def _write_archive(assets: dict[str, str]) -> None:
    members = {"metadata.json": Path("metadata.json"), "config.json": Path(CONFIG), "model.weights.h5": Path(WEIGHTS)}
    members["metadata.json"].write_text(json.dumps(_METADATA))
    members |= {member: Path(file) for file, member in assets.items()}
    with zipfile.ZipFile(CANONICAL, "w", zipfile.ZIP_STORED) as archive:
        for member, path in members.items():
            with path.open("rb") as content, archive.open(zipfile.ZipInfo(member, _DATE), "w") as target:
                while piece := content.read(1024**2):
                    target.write(piece)
            path.unlink()
