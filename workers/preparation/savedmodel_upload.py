"""Uploads of SavedModels, zipped or as tar.gz: a program's graph, read and rebuilt before anything loads it."""

from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any

from model_store.signature import STRING, Signature, Tensors
from workers.errors import UploadRefused
from workers.preparation.candidates import Candidate, OnnxCandidate, SavedModelCandidate
from workers.preparation.converted_files import ONNX, SAVEDMODEL
from workers.preparation.findings import refused
from workers.preparation.report import VariantFigures
from workers.preparation.samples import Range
from workers.preparation.uploads import Loaded, Upload, signature_of
from workers.runner.process import Runner
from workers.runner.savedmodel import stored_name

# Files in the runner's folder; its commands know them by the same names (savedmodel_gate.py, savedmodel_loading.py).
UPLOADED, KNOWN = "upload.archive", "known.tar"
OTHERS = {"further": "beside it", "aliases": "the same as", "left_out": "not served:"}


class SavedModelUpload(Upload):
    """A SavedModel of TensorFlow 2, one of whose signatures is the default, and the others are served beside it."""

    _clean: Path
    _chosen: str
    _others: dict[str, list[str]]

    def inspect(self) -> str:
        self._runner.give(UPLOADED, self._path)
        self._found = self._call("preparation_open_savedmodel", limit_bytes=self._settings.upload_limit_bytes)
        return (
            f"{self._found['files']} files, {self._found['nodes']:,} nodes in {self._found['functions']} functions,"
            " all of allowed operators"
        )

    def rebuild(self) -> str:
        answer = self._call("preparation_rebuild_savedmodel", signature=self._options.signature)
        self._clean = self._take(SAVEDMODEL)
        self._chosen = str(answer["signature"])
        self._others = {kind: [str(name) for name in answer[kind]] for kind in OTHERS}
        told = [f"{what} {', '.join(map(ascii, self._others[kind]))}" for kind, what in OTHERS.items() if answer[kind]]
        return "; ".join([f"the signature {self._chosen!a}", *told])

    def load(self, trial: Runner) -> Loaded:  # noqa: ARG002 - for formats that ONNX Runtime loads
        self._runner.give(KNOWN, self._clean)
        names = self._others["further"]
        answer = self._call("preparation_load_savedmodel", stored=[stored_name(name, self._chosen) for name in names])
        unfit = [(name, "the version has as many signatures as it may") for name in self._others["left_out"]]
        further = []
        for name, row in zip(names, answer["further"], strict=True):
            try:
                further.append(self._loaded(name, row))
            except UploadRefused as error:
                unfit.append((name, error.message))
        aliases = tuple(self._others["aliases"])
        return replace(self._loaded(self._chosen, answer), further=tuple(further), aliases=aliases, unfit=tuple(unfit))

    def _loaded(self, name: str, row: dict[str, Any]) -> Loaded:
        """A signature as the runner described it; raises UploadRefused."""
        if reason := row.get("reason"):
            raise refused("signature", str(reason))
        signature = replace(signature_of(row), name=name)
        return Loaded(signature, self._ranges(signature), half=bool(self._found["half"]), detail="")

    def convert(self, loaded: Loaded, trial: Runner) -> tuple[list[Candidate], list[VariantFigures]]:
        candidates: list[Candidate] = []
        failed: list[VariantFigures] = []
        try:
            graph = self._converted(trial)
            candidates.append(OnnxCandidate(trial, graph, loaded.signature, self._settings))
        except UploadRefused as error:
            failed.append(VariantFigures("onnx", "onnx", reason=error.message))
        candidates.append(SavedModelCandidate(self._runner, self._clean, loaded.signature, self._settings))
        return candidates, failed

    def reference(self, tensors: Tensors) -> Tensors:
        seconds = self._settings.preparation_seconds
        return self._runner.call("preparation_predict_savedmodel", {}, tensors, timeout_seconds=seconds)[1]

    def _ranges(self, signature: Signature) -> list[Range]:
        """Texts of a model that parses examples are such."""
        examples = tuple(base64.b64decode(text) for text in self._found["examples"])
        return [Range(choices=examples) if spec.dtype == STRING else Range() for spec in signature.inputs]

    def _converted(self, trial: Runner) -> Path:
        """The graph, through the gate for ONNX; raises UploadRefused where there is none."""
        answer = self._call("preparation_convert_savedmodel")
        if reason := answer.get("reason"):
            raise UploadRefused(str(reason), code="conversion_failed")
        return self._checked_onnx(self._take(ONNX), trial)
