"""An upload on its way to variants: what every format has to give between the store and the proof."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model_store.signature import Signature, Tensors, TensorSpec
from model_store.upload_options import UploadOptions
from workers.preparation.candidates import Candidate
from workers.preparation.findings import refused
from workers.preparation.report import VariantFigures
from workers.preparation.samples import Range
from workers.runner.process import Runner
from workers.settings import WorkerSettings

NOTHING_SAID = UploadOptions()
# Files in a runner's folder; the gate for ONNX knows them by the same names (onnx_gate.py).
UPLOADED_ONNX, ONNX = "upload.onnx", "model.onnx"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that could be loaded: its signature, what its inputs take, and whether it computes in 16 bits.

    `further` are more signatures of the same program, `aliases` more names of this one, and `unfit` the names of those
    that cannot be served, with the reason.
    """

    signature: Signature
    ranges: Sequence[Range]
    half: bool
    detail: str
    further: tuple[Loaded, ...] = ()
    aliases: tuple[str, ...] = ()
    unfit: tuple[tuple[str, str], ...] = ()


class Upload(ABC):
    """One uploaded file with the runner that reads it; `folder` is where its variants are kept meanwhile."""

    def __init__(
        self, path: Path, runner: Runner, folder: Path, settings: WorkerSettings, options: UploadOptions = NOTHING_SAID
    ) -> None:
        self._path = path
        self._runner = runner
        self._folder = folder
        self._settings = settings
        self._options = options

    @abstractmethod
    def inspect(self) -> str:
        """The gate, as far as it needs no native code; returns a sentence. Raises UploadRefused."""

    @abstractmethod
    def rebuild(self) -> str:
        """The gate's native part, and the canonical form; returns a sentence. Raises UploadRefused, RunnerFailed."""

    @abstractmethod
    def load(self, trial: Runner) -> Loaded:
        """Loads the canonical form; `trial` is a second runner, for ONNX. Raises UploadRefused, RunnerFailed."""

    @abstractmethod
    def convert(self, loaded: Loaded, trial: Runner) -> tuple[list[Candidate], list[VariantFigures]]:
        """Variants on trial, the preferred one first, and those that could not even be made. Raises as `load` does."""

    @abstractmethod
    def reference(self, tensors: Tensors) -> Tensors:
        """The model's own outputs, which variants are compared with. Raises as `load` does."""

    def example(self, signature: Signature) -> Tensors | None:  # noqa: ARG002 - for formats that bring one
        """Inputs that came with the upload, where there are such; raises SamplesUnfit where they do not fit."""
        return None

    def _call(self, command: str, **arguments: object) -> dict[str, Any]:
        return self._runner.call(command, arguments, {}, timeout_seconds=self._settings.preparation_seconds)[0]

    def _checked_onnx(self, graph: Path, trial: Runner) -> Path:
        """The graph through the gate for ONNX, in a process that has not seen the upload; raises UploadRefused.

        The runner executed a program: the graph that it left will run in serving workers' own processes.
        """
        trial.give(UPLOADED_ONNX, graph)
        trial.call("preparation_rebuild_onnx", {}, {}, timeout_seconds=self._settings.preparation_seconds)
        graph.unlink()
        return self._take(ONNX, trial)

    def _take(self, name: str, runner: Runner | None = None) -> Path:
        """Moves a file that the runner made out of its reach."""
        try:
            path = ((runner or self._runner).scratch / name).rename(self._folder / name)
        except OSError as error:
            raise refused("runner_crashed", "the runner left no file") from error
        # The runner executes what was uploaded: it may have left a link to a file of ours in the place of its own.
        if not stat.S_ISREG(path.lstat().st_mode):
            raise refused("runner_crashed", "the runner left no regular file")
        return path


def signature_of(answer: dict[str, Any]) -> Signature:
    """The signature that a runner described; raises UploadRefused (`signature`) for names that come twice."""
    inputs, outputs = (
        tuple(TensorSpec(row["name"], row["dtype"], tuple(row["shape"])) for row in answer[part])
        for part in ("inputs", "outputs")
    )
    for specs in (inputs, outputs):
        if len({spec.name for spec in specs}) != len(specs):
            raise refused("signature", "two tensors have the same name")
    for spec in inputs:
        if any(size is not None and size < 1 for size in spec.shape):
            raise refused("signature", f"no instance has the shape {spec.shape}", spec.name)
    return Signature(inputs, outputs)
