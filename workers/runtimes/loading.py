"""From a served version to a predictor: verify the artifact, load it with the runtime it was made for, warm it up."""

from __future__ import annotations

import functools
import logging
import time

from model_store.artifacts import Artifacts
from model_store.registry import Served
from monitoring.metrics import MODEL_LOADS
from workers.errors import PredictionFailed, PredictorTooLarge
from workers.runtimes.blanks import blank as blank
from workers.runtimes.onnx import OnnxPredictor
from workers.runtimes.predictor import Predictor
from workers.runtimes.reproof import reprove
from workers.runtimes.tensorflow import RunnerPredictor
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)


def load(served: Served, artifacts: Artifacts, settings: WorkerSettings) -> Predictor:
    """A warm predictor for the version.

    Raises ArtifactMissing, ArtifactCorrupt, PredictorTooLarge, PredictionFailed where the variant is no model of this
    signature, RunnerFailed, and EnvironmentMismatch where it answers otherwise here than where it was prepared.
    """
    if served.memory_bytes > settings.predictor_budget_bytes:
        raise PredictorTooLarge.by(served.memory_bytes, settings.predictor_budget_bytes)
    begin = time.monotonic()
    predictor = _open(served, artifacts, settings)
    try:
        reprove(served, predictor, artifacts)
        warm_up(predictor, served.max_batch)
        if isinstance(predictor, RunnerPredictor):
            for one in served.further.listed:
                warm_up(predictor.further[one.signature.name], one.max_batch)
    except BaseException:  # closed and raised again
        predictor.close()
        raise
    MODEL_LOADS.labels(served.runtime).observe(time.monotonic() - begin)
    return predictor


def warm_up(predictor: Predictor, max_batch: int) -> None:
    """Run the smallest and the largest batch once, so that no request pays for first allocations.

    Raises RunnerFailed. A model that does not like zeros is as warm as it gets.
    """
    for batch in (1, max_batch) if predictor.signature.batched else (1,):
        try:
            predictor.run(blank(predictor.signature, batch))
        except PredictionFailed as error:
            log.info("the warm-up of a model failed: %s", error)


def _open(served: Served, artifacts: Artifacts, settings: WorkerSettings) -> Predictor:
    opened = functools.partial(artifacts.opened, served.digest)
    match served.runtime:
        case "onnx":
            with opened() as path:
                return OnnxPredictor(path, served.signature, served.memory_bytes, settings.inference_threads)
        case "tensorflow":
            further = [one.signature for one in served.further.listed]
            return RunnerPredictor(opened, served.signature, served.memory_bytes, settings, further)
        case unknown:
            raise PredictionFailed(f"this worker has no runtime {unknown!r}")
