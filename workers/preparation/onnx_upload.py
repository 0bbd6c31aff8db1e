"""Uploads in the format of ONNX: rebuilt rather than converted, and compared with themselves before optimisation."""

from __future__ import annotations

from pathlib import Path

from model_store.signature import Tensors
from workers.errors import PredictionFailed
from workers.preparation.candidates import Candidate, OnnxCandidate
from workers.preparation.findings import refused
from workers.preparation.report import VariantFigures
from workers.preparation.samples import Range
from workers.preparation.uploads import ONNX, UPLOADED_ONNX, Loaded, Upload, signature_of
from workers.runner.process import Runner

PLAIN = "plain.onnx"  # in the runner's folder


class OnnxUpload(Upload):
    """An `.onnx` file."""

    _clean: Path
    _outputs: list[str]
    _trial: Runner

    def inspect(self) -> str:
        self._runner.give(UPLOADED_ONNX, self._path)
        self._answer = self._call("preparation_rebuild_onnx")
        return f"{self._answer['nodes']} nodes of opset {self._answer['opset']}, no other domains, no external data"

    def rebuild(self) -> str:
        self._clean = self._take(ONNX)
        return f"{self._answer['size_bytes']:,} bytes"

    def load(self, trial: Runner) -> Loaded:
        signature = signature_of(self._answer)
        trial.give(PLAIN, self._clean)
        self._trial = trial
        try:
            trial.call("trial_load_plain", {"path": PLAIN}, {}, timeout_seconds=self._settings.preparation_seconds)
        except PredictionFailed as error:
            raise refused("load_failed", f"ONNX Runtime cannot load the graph: {error}") from error
        self._outputs = [spec.name for spec in signature.outputs]
        return Loaded(signature, [Range()] * len(signature.inputs), half=False, detail="")

    def convert(self, loaded: Loaded, trial: Runner) -> tuple[list[Candidate], list[VariantFigures]]:
        return [OnnxCandidate(trial, self._clean, loaded.signature, self._settings)], []

    def reference(self, tensors: Tensors) -> Tensors:
        arguments = {"outputs": self._outputs}
        seconds = self._settings.preparation_seconds
        return self._trial.call("trial_predict_plain", arguments, tensors, timeout_seconds=seconds)[1]
