"""From a served version to a predictor: verify the artifact, load it with the runtime it was made for, warm it up."""

from __future__ import annotations

import functools
import logging
import time

import numpy as np

from model_store.artifacts import Artifacts
from model_store.registry import Served
from model_store.signature import STRING, Signature, Tensor, Tensors, TensorSpec
from monitoring.metrics import MODEL_LOADS
from workers.errors import PredictionFailed, PredictorTooLarge
from workers.runtimes.onnx import OnnxPredictor
from workers.runtimes.predictor import Predictor
from workers.runtimes.tensorflow import RunnerPredictor
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)


def load(served: Served, artifacts: Artifacts, settings: WorkerSettings) -> Predictor:
    """A warm predictor for the version.

    Raises ArtifactMissing, ArtifactCorrupt, PredictorTooLarge, PredictionFailed where the variant is no model of this
    signature, and RunnerFailed.
    """
    if served.memory_bytes > settings.predictor_budget_bytes:
        raise PredictorTooLarge("the model needs more memory than this worker has for models")
    begin = time.monotonic()
    predictor = _open(served, artifacts, settings)
    try:
        warm_up(predictor, served.max_batch)
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


def blank(signature: Signature, batch: int) -> Tensors:
    """Inputs of zeros or empty strings with `batch` rows; other free dimensions are 1."""
    return {spec.name: _blank(spec, batch) for spec in signature.inputs}


def _blank(spec: TensorSpec, batch: int) -> Tensor:
    sizes = [1 if size is None else size for size in spec.shape]
    shape = (batch, *sizes[1:]) if spec.batched else tuple(sizes)
    return np.full(shape, b"", object) if spec.dtype == STRING else np.zeros(shape, spec.dtype)


def _open(served: Served, artifacts: Artifacts, settings: WorkerSettings) -> Predictor:
    opened = functools.partial(artifacts.opened, served.digest)
    match served.runtime:
        case "onnx":
            with opened() as path:
                return OnnxPredictor(path, served.signature, served.memory_bytes, settings.inference_threads)
        case "tensorflow":
            return RunnerPredictor(opened, served.signature, served.memory_bytes, settings)
        case unknown:
            raise PredictionFailed(f"this worker has no runtime {unknown!r}")
