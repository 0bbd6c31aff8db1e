"""The folder of an MLflow model, unpacked in a runner: where its model lies, and that nothing in it is a pickle."""

from __future__ import annotations

import re
import shutil
import zipfile
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from model_store.signature import Tensors
from workers.errors import UploadRefused
from workers.preparation import mlflow_document, savedmodel_archive
from workers.preparation.findings import refused, shown
from workers.preparation.mlflow_document import Document

# Files in the runner's folder: what is given to it, and the model that it leaves for the gate of its own format.
UPLOADED, MODEL, UNPACKED = "upload.mlflow", "model.mlflow", "mlflow"
DOCUMENT = "MLmodel"
PICKLES = re.compile(r".*\.(?:pkl|pickle|cloudpickle|joblib|dill|pt|pth|py|pyc|so)", re.IGNORECASE)
# The opcode PROTO and a version (pickletools): what every pickle since protocol 2 begins with.
PICKLED = re.compile(rb"\x80[\x02-\x05]")
# What the Keras and TensorFlow flavors call their model, below `data`.
MODELS = ("model.keras", "model.h5", "model")
SUFFIXES = {".keras": "keras", ".h5": "h5"}


def open_mlflow(
    held: dict[str, Any],  # noqa: ARG001 - a command's signature
    arguments: dict[str, Any],
    tensors: Tensors,  # noqa: ARG001 - as above
) -> tuple[dict[str, Any], Tensors]:
    """Unpacks upload.mlflow into at most `limit_bytes` and leaves its model as model.mlflow, a SavedModel zipped.

    Answers `kind`, the model's format, and `document`, the fields of a Document without its terms. Raises as `unpack`.
    """
    packed = Path(UPLOADED)
    root, document = unpack(packed, Path(UNPACKED), int(arguments["limit_bytes"]))
    packed.unlink()
    model = locate(root, document)
    kind = kind_of(model, document)
    if model.is_dir():
        pack(model, Path(MODEL))
    else:
        model.rename(MODEL)
    shutil.rmtree(UNPACKED)
    return {"kind": kind, "document": asdict(replace(document, terms={}))}, {}


def unpack(path: Path, folder: Path, limit_bytes: int) -> tuple[Path, Document]:
    """The folder that has the MLmodel file, unpacked below `folder`, and what that file says.

    Raises UploadRefused: mlflow_archive, mlflow_document, mlflow_flavor, mlflow_code, mlflow_pickle.
    """
    try:
        savedmodel_archive.unpack(path, folder, limit_bytes)
    except UploadRefused as error:
        message = error.message.replace("a SavedModel", "an MLflow model")
        raise UploadRefused(message, code="mlflow_archive") from error
    found = [folder / DOCUMENT] if (folder / DOCUMENT).is_file() else sorted(folder.glob(f"*/{DOCUMENT}"))
    if len(found) != 1:
        raise refused("mlflow_archive", f"there is no {DOCUMENT}, or more than one: pack the folder that has it")
    root = found[0].parent
    document = mlflow_document.read(found[0].read_bytes()[: mlflow_document.SIZE_LIMIT_BYTES + 1])
    model = locate(root, document)
    for file in sorted(root.rglob("*")):
        if file.is_file() and file != model and model not in file.parents:
            _require_no_pickle(file, file.relative_to(root))
    return root, document


def locate(root: Path, document: Document) -> Path:
    """The model's own file, or its folder where it is a SavedModel; raises UploadRefused (mlflow_document)."""
    data = document.terms.get("data") or document.terms.get("saved_model_dir")
    place = root / _relative(data)
    for candidate in [place] if document.flavor == "onnx" else [*(place / name for name in MODELS), place]:
        if candidate.is_file() or (candidate / "saved_model.pb").is_file():
            return candidate
    raise refused("mlflow_document", f"the flavor {document.flavor} names {shown(data)}, where no model is")


def kind_of(model: Path, document: Document) -> str:
    """The format of a model that was located; raises UploadRefused (mlflow_document)."""
    if model.is_dir():
        return "savedmodel"
    if document.flavor == "onnx":
        return "onnx"
    kind = SUFFIXES.get(model.suffix)
    if kind is None:
        raise refused("mlflow_document", f"{shown(model.name)} is no file of a Keras model")
    return kind


def pack(folder: Path, target: Path) -> None:
    """A SavedModel's folder as the archive that its own gate reads."""
    with zipfile.ZipFile(target, "x", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder))


def _relative(data: object) -> PurePosixPath:
    path = PurePosixPath(data) if isinstance(data, str) and data.isprintable() else PurePosixPath("..")
    if path.is_absolute() or ".." in path.parts:
        raise refused("mlflow_document", f"the flavor names {shown(data)}, which is no place in the folder")
    return path


def _require_no_pickle(file: Path, name: Path) -> None:
    with file.open("rb") as content:
        begins = content.read(2)
    if PICKLES.fullmatch(file.name) or PICKLED.fullmatch(begins):
        raise refused(
            "mlflow_pickle",
            f"{shown(str(name))} is a pickle or code, which runs when MLflow loads the model; log it without",
        )
