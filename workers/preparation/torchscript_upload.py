"""Uploads of TorchScript: a program, which runs only to be compared with the ONNX graph that serves in its place."""

from __future__ import annotations

from dataclasses import asdict

from model_store.signature import Tensors
from workers.preparation.candidates import Candidate, OnnxCandidate
from workers.preparation.findings import refused
from workers.preparation.report import VariantFigures
from workers.preparation.samples import Range
from workers.preparation.uploads import ONNX, Loaded, Upload, signature_of
from workers.runner.process import Runner

# The file in the runner's folder; its commands know it by the same name (torchscript_loading.py).
UPLOADED = "upload.pt"


class TorchScriptUpload(Upload):
    """A `.pt` file as torch.jit.save writes it; its inputs are named by the upload's option `inputs`."""

    def inspect(self) -> str:
        if not self._options.inputs:
            raise refused(
                "torchscript_inputs",
                "TorchScript does not say what its inputs are: upload it with inputs=name:dtype[size,…],… (-1 for any"
                " size), as in inputs=x:float32[-1,4]",
            )
        self._runner.give(UPLOADED, self._path)
        return f"{len(self._options.inputs)} inputs, as the uploader named them"

    def rebuild(self) -> str:
        self._answer = self._call(
            "preparation_load_torchscript", inputs=[asdict(spec) for spec in self._options.inputs]
        )
        return f"{self._answer['nodes']:,} nodes of allowed operators"

    def load(self, trial: Runner) -> Loaded:  # noqa: ARG002 - for formats that ONNX Runtime loads
        signature = signature_of(self._answer)
        return Loaded(signature, [Range()] * len(signature.inputs), half=bool(self._answer["half"]), detail="")

    def convert(self, loaded: Loaded, trial: Runner) -> tuple[list[Candidate], list[VariantFigures]]:
        self._call("preparation_convert_torchscript")
        graph = self._checked_onnx(self._take(ONNX), trial)
        return [OnnxCandidate(trial, graph, loaded.signature, self._settings)], []

    def reference(self, tensors: Tensors) -> Tensors:
        seconds = self._settings.preparation_seconds
        return self._runner.call("preparation_predict_torchscript", {}, tensors, timeout_seconds=seconds)[1]
