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
# The input example, as a request to MLflow's scoring server; longer ones are left.
NO_EXAMPLE = "there is none"
EXAMPLE, EXAMPLE_BYTES = "example.json", 8 * 1024**2
# Which of a scoring request's forms an example of this kind is.
EXAMPLE_FORMS = {"ndarray": "inputs", "json_object": "inputs", "dataframe": "dataframe_split"}
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

    Answers `kind`, the model's format, `document`, the fields of a Document without its terms, and `example`: whether
    example.json is left as well, or why not. Raises as `unpack`.
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
    example = leave_example(root, document, Path(EXAMPLE))
    shutil.rmtree(UNPACKED)
    return {"kind": kind, "document": asdict(replace(document, terms={})), "example": example}, {}


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


def leave_example(root: Path, document: Document, target: Path) -> str:
    """Writes the input example as a scoring request; returns "" where it did, else why there is none.

    What is wrong with an example is no reason to refuse its model.
    """
    form = "" if document.serving_example else EXAMPLE_FORMS.get(document.example_kind, "")
    name = document.serving_example or document.example
    if name is None:
        return NO_EXAMPLE
    if not document.serving_example and not form:
        return f"examples of the kind {shown(document.example_kind)} are not read"
    path = PurePosixPath(name)
    if len(path.parts) != 1 or name == "..":
        return f"{shown(name)} is no file of the folder"
    try:
        with (root / path).open("rb") as file:
            text = file.read(EXAMPLE_BYTES + 1)
    except (OSError, ValueError):
        # The second is for what cannot be a file's name: a NUL, half of a surrogate pair.
        return f"there is no file {shown(name)}"
    if len(text) > EXAMPLE_BYTES:
        return f"it is larger than {EXAMPLE_BYTES:,} bytes"
    target.write_bytes(b'{"%s": %s}' % (form.encode(), text) if form else text)
    return ""


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
