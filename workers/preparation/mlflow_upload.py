"""Uploads of MLflow model folders: the model in it goes the way of its own format, under what the folder says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_store.formats import check_allowed
from model_store.parameters import read_parameters
from model_store.signature import STRING, Signature, Tensors, TensorSpec
from workers.errors import InputInvalid
from workers.preparation.candidates import Candidate
from workers.preparation.evidence import UPLOADED_INSTANCES, SamplesUnfit
from workers.preparation.findings import refused, shown
from workers.preparation.keras_uploads import KerasArchive, KerasH5
from workers.preparation.mlflow_document import Document
from workers.preparation.mlflow_folder import EXAMPLE, EXAMPLE_BYTES, MODEL, NO_EXAMPLE, UPLOADED
from workers.preparation.onnx_upload import OnnxUpload
from workers.preparation.report import VariantFigures
from workers.preparation.savedmodel_upload import SavedModelUpload
from workers.preparation.uploads import Loaded, Upload
from workers.protocols.json_text import parse_json
from workers.protocols.mlflow_scoring import parse_document
from workers.runner.process import Runner

KINDS: dict[str, type[Upload]] = {
    "keras": KerasArchive,
    "h5": KerasH5,
    "onnx": OnnxUpload,
    "savedmodel": SavedModelUpload,
}


class MlflowUpload(Upload):
    """A folder with an MLmodel file, as a zip archive or a tar.gz."""

    _inner: Upload
    _document: Document
    _example: Path | None
    _no_example: str

    def inspect(self) -> str:
        # In the runner: the archive and its headers are read by libraries that take what memory and time they say.
        self._runner.give(UPLOADED, self._path)
        answer = self._call("preparation_open_mlflow", limit_bytes=self._settings.upload_limit_bytes)
        document, kind = Document(**answer["document"]), str(answer["kind"])
        check_allowed(kind, self._settings.upload_formats)
        model = self._take(MODEL)
        self._document = document
        self._no_example = str(answer["example"])
        self._example = None if self._no_example else self._take(EXAMPLE)
        self._inner = KINDS[kind](model, self._runner, self._folder, self._settings, self._options)
        return f"flavor {document.flavor} of MLflow {shown(document.mlflow_version)}: {self._inner.inspect()}"

    def rebuild(self) -> str:
        return self._inner.rebuild()

    def load(self, trial: Runner) -> Loaded:
        loaded = self._inner.load(trial)
        compared = [
            agree(self._document.inputs, loaded.signature.inputs, "inputs"),
            agree(self._document.outputs, loaded.signature.outputs, "outputs"),
        ]
        detail = "; ".join(part for part in (loaded.detail, *compared) if part)
        signature = replace(loaded.signature, parameters=read_parameters(self._document.params or []))
        return replace(loaded, signature=signature, detail=detail)

    def convert(self, loaded: Loaded, trial: Runner) -> tuple[list[Candidate], list[VariantFigures]]:
        return self._inner.convert(loaded, trial)

    def reference(self, tensors: Tensors) -> Tensors:
        return self._inner.reference(tensors)

    def example(self, signature: Signature) -> Tensors | None:
        if self._example is None:
            if self._no_example == NO_EXAMPLE:
                return None
            raise SamplesUnfit(self._no_example)
        with self._example.open("rb") as file:
            text = file.read(EXAMPLE_BYTES * 2)
        return example_in(text, signature)


def example_in(text: bytes, signature: Signature) -> Tensors:
    """The inputs in an example that is a request to MLflow's scoring server; raises SamplesUnfit."""
    try:
        document = parse_json(text)
        if isinstance(document, dict):
            # They are for the model's code, and are not part of its inputs.
            document.pop("params", None)
        return parse_document(document, signature, UPLOADED_INSTANCES).tensors
    except InputInvalid as error:
        raise SamplesUnfit(error.message) from error


def agree(columns: Sequence[Mapping[str, Any]] | None, specs: Sequence[TensorSpec], what: str) -> str:
    """A sentence on how MLflow's signature and the model's own agree; raises UploadRefused (mlflow_signature).

    MLflow infers its signature from an example, whose precision is often not the model's own: float64 for a model of
    float32 is the same signature. Another number of tensors, other names, kinds of numbers or shapes are not.
    """
    if columns is None:
        return f"MLflow's signature has no {what}"
    if any(column.get("type") != "tensor" for column in columns):
        return f"MLflow's {what} are columns, not tensors: the model's own hold"
    if len(columns) != len(specs):
        raise refused("mlflow_signature", f"MLflow's signature has {len(columns)} {what}, the model {len(specs)}")
    by_name = {spec.name: spec for spec in specs}
    for column in columns:
        name = column.get("name")
        spec = specs[0] if name is None and len(specs) == 1 else by_name.get(str(name))
        if spec is None:
            names = ", ".join(sorted(by_name))
            raise refused("mlflow_signature", f"MLflow's signature names {shown(name)}; the model's {what} are {names}")
        _require_same(column.get("tensor-spec"), spec)
    return f"the {what} are those of MLflow's signature"


def _require_same(described: object, spec: TensorSpec) -> None:
    found = described if isinstance(described, dict) else {}
    dtype, shape = str(found.get("dtype")), found.get("shape")
    if _kind(dtype) != _kind(spec.dtype):
        raise refused("mlflow_signature", f"MLflow's signature says {shown(dtype)}, the model {spec.dtype}", spec.name)
    fits = (
        isinstance(shape, list)
        and len(shape) == len(spec.shape)
        and all(size in (-1, None) or own is None or size == own for size, own in zip(shape, spec.shape, strict=True))
    )
    if not fits:
        said, own = shown(str(shape)), [-1 if size is None else size for size in spec.shape]
        raise refused("mlflow_signature", f"MLflow's signature says the shape {said}, the model {own}", spec.name)


def _kind(dtype: str) -> str:
    return STRING if dtype in ("str", "object", STRING) else dtype.rstrip("0123456789")
