"""Variants on trial: each loads what may be served, runs it and times it, with the code that will serve it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path

import psutil

from model_store.signature import Signature, Tensors
from workers.errors import PredictionFailed
from workers.preparation.report import VariantFigures
from workers.preparation.trial import median_seconds
from workers.runner.process import Runner
from workers.runtimes.tensorflow import ARCHIVE, load_arguments
from workers.settings import WorkerSettings

# A load may import TensorFlow on a busy machine.
GRACE_SECONDS = 30.0
CANDIDATE = "candidate.onnx"  # in the runner's folder


class Candidate(ABC):
    """One variant of a version, in a runner; a class is made for each runtime."""

    name: str
    runtime: str
    figures: VariantFigures

    def __init__(
        self, runner: Runner, path: Path, signature: Signature, settings: WorkerSettings, *, name: str | None = None
    ) -> None:
        """`path` is the variant's file, outside the runner's folder; `name` is one of variant_policies.NAMES, where it
        is not what the class itself makes."""
        self.name = name or type(self).name
        self.path = path
        self.signature = signature
        self.figures = VariantFigures(self.name, self.runtime, size_bytes=path.lstat().st_size)
        self._runner = runner
        self._settings = settings
        self._resident = 0
        self._notes_memory = True

    @abstractmethod
    def load(self) -> float:
        """Loads it and returns the seconds that took; raises PredictionFailed, RunnerFailed."""

    @abstractmethod
    def run(self, tensors: Tensors) -> Tensors:
        """Its outputs; raises PredictionFailed, RunnerFailed."""

    @abstractmethod
    def seconds(self, tensors: Tensors) -> float:
        """The median time of one inference as serving sees it; raises as `run` does."""

    @property
    @abstractmethod
    def memory_bytes(self) -> int:
        """Resident memory that serving it takes, as far as it was timed until now."""

    def close(self) -> None:
        """Ends its runner, where it has one of its own and is not needed any more."""
        self._runner.close()

    def seconds_within(self, tensors: Tensors, room_bytes: int) -> float:
        """As `seconds`; raises PredictionFailed where that takes more memory than a worker has for models.

        Such batches are never formed, so what this one took is not held against the variant; nor what follows, since
        the process keeps it.
        """
        noted = self._resident
        found = self.seconds(tensors)
        if self.memory_bytes > room_bytes:
            self._resident, self._notes_memory = noted, False
            raise PredictionFailed("a batch of this size takes more memory than a worker has for models")
        return found

    def _note_memory(self) -> None:
        """To be called while the runner lives: the batch that shows how large is too large kills it."""
        if self._notes_memory:
            self._resident = max(self._resident, self._resident_bytes())

    def _resident_bytes(self) -> int:
        return int(psutil.Process(self._runner.pid).memory_info().rss)

    @property
    def _inference_seconds(self) -> float:
        return self._settings.hang_limit_seconds + GRACE_SECONDS


class LibraryCandidate(Candidate):
    """A runtime that is a library: its memory is what the runner grows by, since a process holds many models."""

    file: str  # its name in the runner's folder

    def load(self) -> float:
        self._runner.give(self.file, self.path)
        timeout = self._settings.preparation_seconds
        self._runner.call(f"trial_start_{self.runtime}", {}, {}, timeout_seconds=timeout)
        self._before = self._resident_bytes()
        arguments = {
            "path": self.file,
            "signature": self.signature.to_json(),
            "threads": self._settings.inference_threads,
        }
        begin = time.monotonic()
        self._runner.call(f"trial_load_{self.runtime}", arguments, {}, timeout_seconds=timeout)
        return time.monotonic() - begin

    def run(self, tensors: Tensors) -> Tensors:
        seconds = self._inference_seconds
        return self._runner.call(f"trial_predict_{self.runtime}", {}, tensors, timeout_seconds=seconds)[1]

    def seconds(self, tensors: Tensors) -> float:
        timeout = self._inference_seconds
        answer, _ = self._runner.call(f"trial_time_{self.runtime}", {}, tensors, timeout_seconds=timeout)
        self._note_memory()
        return float(answer["seconds"])

    @property
    def memory_bytes(self) -> int:
        # The weights at least: a process that had free memory before may not grow at all.
        return max(self._resident - self._before, self.path.lstat().st_size)


class OnnxCandidate(LibraryCandidate):
    """ONNX Runtime, in the serving worker's own process."""

    name = runtime = "onnx"
    file = CANDIDATE


class LiteRtCandidate(LibraryCandidate):
    """LiteRT: measured and exported, never served (variant_policies.EXPORTED)."""

    name = runtime = "litert"
    file = "candidate.tflite"


class SavedModelCandidate(Candidate):
    """TensorFlow: serving gives it a process of its own, so its memory is all of that process."""

    name, runtime = "savedmodel", "tensorflow"

    def load(self) -> float:
        self._runner.give(ARCHIVE, self.path)
        begin = time.monotonic()
        seconds = self._settings.preparation_seconds
        self._runner.call("load_savedmodel", load_arguments(self.signature), {}, timeout_seconds=seconds)
        return time.monotonic() - begin

    def run(self, tensors: Tensors) -> Tensors:
        return self._runner.call("predict_savedmodel", {}, tensors, timeout_seconds=self._inference_seconds)[1]

    def seconds(self, tensors: Tensors) -> float:
        seconds = median_seconds(lambda: self.run(tensors))
        self._note_memory()
        return seconds

    @property
    def memory_bytes(self) -> int:
        return self._resident
