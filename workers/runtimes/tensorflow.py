"""TensorFlow: a SavedModel that runs in a runner, for versions that ONNX cannot express."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from model_store.errors import SluiceError
from model_store.signature import Signature, Tensors, TensorSpec
from workers.errors import PredictionFailed, RunnerFailed
from workers.runner.process import Runner
from workers.runner.savedmodel import stored_name
from workers.runtimes.predictor import batch_of, check_batch
from workers.settings import WorkerSettings

ARCHIVE = "savedmodel.tar"
# Importing TensorFlow takes 4 s on an idle machine and several times that on a busy one.
LOAD_SECONDS = 120.0
# The first restart is at once; a model that kills its runner again waits 1, 2, 4, … s.
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0

OpenArchive = Callable[[], AbstractContextManager[Path]]

log = logging.getLogger(__name__)


class RunnerPredictor:
    """A SavedModel in a process of its own; one call at a time. A dead runner is replaced by the next call.

    `further` are its other signatures by their names, which run in the same process.
    """

    runtime = "tensorflow"

    def __init__(
        self,
        open_archive: OpenArchive,
        signature: Signature,
        memory_bytes: int,
        settings: WorkerSettings,
        further: Sequence[Signature] = (),
    ) -> None:
        """Starts the runner and loads; `open_archive` gives the verified archive, again for each restart.

        Raises RunnerFailed, and PredictionFailed or UploadRefused where the archive is not such a SavedModel.
        """
        self.signature = signature
        self.memory_bytes = memory_bytes
        self.further = {one.name: FurtherPredictor(self, one) for one in further}
        self._open_archive = open_archive
        self._settings = settings
        self._calling = threading.Lock()
        self._closed = False
        self._deaths = 0  # since the last call that was answered
        self._not_before = 0.0
        self._runner: Runner | None = self._start()

    def run(self, tensors: Tensors) -> Tensors:
        return self.run_signature(self.signature, {}, tensors)

    def run_signature(self, signature: Signature, arguments: dict[str, Any], tensors: Tensors) -> Tensors:
        """As `run`, of the signature that `arguments` name."""
        with self._calling:
            runner = self._living()
            try:
                _, outputs = runner.call(
                    "predict_savedmodel", arguments, tensors, timeout_seconds=self._settings.hang_limit_seconds
                )
            except RunnerFailed:
                self._count_death()
                raise
            self._deaths = 0
        _check(signature.outputs, outputs)
        check_batch(batch_of(signature, tensors), outputs)
        return outputs

    def close(self) -> None:
        """End the runner, after a call in progress; later calls raise RunnerFailed."""
        with self._calling:
            self._closed = True
            if self._runner is not None:
                self._runner.close()
                self._runner = None

    def _living(self) -> Runner:
        if self._runner is not None and not self._runner.alive:
            self._runner.close()
            self._count_death()
        if self._runner is None:
            if self._closed or time.monotonic() < self._not_before:
                raise RunnerFailed("the process that runs the model is being replaced", code="runner_crashed")
            log.info("starting another runner")
            try:
                self._runner = self._start()
            except SluiceError:
                self._count_death()
                raise
        return self._runner

    def _count_death(self) -> None:
        self._runner = None
        if self._deaths:
            pause_seconds = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** (self._deaths - 1))
            self._not_before = time.monotonic() + pause_seconds
        self._deaths += 1

    def _start(self) -> Runner:
        runner = Runner(self._settings)
        try:
            # A copy: the runner may write to what lies in its folder, and the store's file is everybody's.
            with self._open_archive() as archive:
                runner.give(ARCHIVE, archive)
            seconds = max(LOAD_SECONDS, self._settings.hang_limit_seconds)
            further = [one.signature for one in self.further.values()]
            runner.call("load_savedmodel", load_arguments(self.signature, further), {}, timeout_seconds=seconds)
        except OSError as error:
            runner.close()
            raise RunnerFailed("there is no room to unpack the model", code="runner_disk") from error
        except BaseException:  # closed and raised again
            runner.close()
            raise
        return runner


class FurtherPredictor:
    """A further signature of a SavedModel that is loaded: memory, and the process's life, are the SavedModel's."""

    runtime = RunnerPredictor.runtime
    memory_bytes = 0

    def __init__(self, whole: RunnerPredictor, signature: Signature) -> None:
        self.signature = signature
        self._whole = whole

    def run(self, tensors: Tensors) -> Tensors:
        return self._whole.run_signature(self.signature, {"signature": self.signature.name}, tensors)

    def close(self) -> None:
        """Nothing to do: it goes with the whole."""


def load_arguments(signature: Signature, further: Sequence[Signature] = ()) -> dict[str, Any]:
    """What the runner is told to load: the default signature of the archive, and further ones."""
    listed = [{"name": one.name, "stored": stored_name(one.name, signature.name), **_names(one)} for one in further]
    return {"archive": ARCHIVE, **_names(signature), "further": listed}


def _names(signature: Signature) -> dict[str, list[str]]:
    return {
        "inputs": [spec.name for spec in signature.inputs],
        "outputs": [spec.name for spec in signature.outputs],
    }


def _check(specs: tuple[TensorSpec, ...], outputs: Tensors) -> None:
    # The runner executes what was uploaded: what it answers is believed only as far as it fits.
    if list(outputs) != [spec.name for spec in specs]:
        raise PredictionFailed("the model's outputs are not those of its signature")
    for spec in specs:
        if outputs[spec.name].dtype != spec.numpy_dtype():
            raise PredictionFailed(f"the model's output {spec.name!r} is not {spec.dtype}")
