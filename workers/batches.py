"""Batches: predictions of many callers on one version, as few inferences as possible, each answer for its own input."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from model_store.errors import SluiceError
from model_store.signature import Signature, Tensors
from monitoring import metrics
from workers.errors import InputInvalid, PredictionFailed, RunnerFailed
from workers.protocols import tensorflow_serving as dialect
from workers.runtimes.predictor import Predictor

# A batch that takes less than this may run between two reads of the loop; a slower one would hold up other versions.
INLINE_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Loaded:
    """A predictor together with what preparation measured of its version."""

    model: str
    version: int
    predictor: Predictor
    max_batch: int
    max_parallelism: int
    max_instances: int
    batch_seconds: float | None

    @property
    def memory_bytes(self) -> int:
        return self.predictor.memory_bytes

    @property
    def signature(self) -> Signature:
        return self.predictor.signature

    @property
    def runtime(self) -> str:
        return self.predictor.runtime

    @property
    def inline(self) -> bool:
        """Whether its batches are short enough to run in the loop."""
        return self.runtime == "onnx" and self.batch_seconds is not None and self.batch_seconds < INLINE_SECONDS

    def run(self, tensors: Tensors) -> Tensors:
        return self.predictor.run(tensors)

    def close(self) -> None:
        self.predictor.close()


Outcome = bytes | SluiceError
"""The body of a 200 answer, or the error that took its place."""

Request = dialect.PredictRequest
Run = Callable[[Tensors], Tensors]


def predict_all(loaded: Loaded, bodies: Sequence[bytes], run: Run | None = None) -> list[Outcome]:
    """Answer each body, in order; a body that does not fit, or that the model fails on, spoils no other.

    `run` stands for `loaded.run` where each inference is to be watched. Raises RunnerFailed where the runtime itself
    died: nothing is known about any of the inputs then.
    """
    run = run or loaded.run
    outcomes: list[Outcome | None] = [None] * len(bodies)
    groups: dict[tuple[tuple[int, ...], ...], list[tuple[int, Request]]] = {}
    for index, body in enumerate(bodies):
        try:
            request = dialect.parse_predict(body, loaded.signature, max_instances=loaded.max_instances)
        except InputInvalid as error:
            outcomes[index] = error
            continue
        groups.setdefault(_shape_key(request, alone=not loaded.signature.batched, index=index), []).append(
            (index, request)
        )
    for members in groups.values():
        for (index, _), outcome in zip(
            members, _predict_group(loaded, run, [request for _, request in members]), strict=True
        ):
            outcomes[index] = outcome
    return [outcome if outcome is not None else PredictionFailed("the request was not run") for outcome in outcomes]


def _shape_key(request: Request, *, alone: bool, index: int) -> tuple[tuple[int, ...], ...]:
    # Requests share an inference where all but the first dimension agree; without a batch dimension none can.
    shapes = tuple(tensor.shape[1:] for tensor in request.tensors.values())
    return (*shapes, (index,)) if alone else shapes


def _predict_group(loaded: Loaded, run: Run, requests: Sequence[Request]) -> list[Outcome]:
    try:
        outputs = _run(loaded, run, _joined(requests), sum(request.instances for request in requests))
    except RunnerFailed:
        raise
    except SluiceError as error:
        if len(requests) == 1:
            return [error]
        # One bad input must not fail its neighbours: find it by running each alone.
        return [outcome for request in requests for outcome in _predict_group(loaded, run, [request])]
    if not loaded.signature.batched:
        return [_format(outputs, loaded.signature, requests[0].row_form)]
    outcomes, start = [], 0
    for request in requests:
        stop = start + request.instances
        part = {name: tensor[start:stop] for name, tensor in outputs.items()}
        outcomes.append(_format(part, loaded.signature, request.row_form))
        start = stop
    return outcomes


def _format(outputs: Tensors, signature: Signature, row_form: bool) -> Outcome:
    try:
        return dialect.format_predict(outputs, signature, row_form)
    except SluiceError as error:
        return error


def _joined(requests: Sequence[Request]) -> Tensors:
    if len(requests) == 1:
        return requests[0].tensors
    return {name: np.concatenate([request.tensors[name] for request in requests]) for name in requests[0].tensors}


def _run(loaded: Loaded, run: Run, tensors: Tensors, instances: int) -> Tensors:
    """Run at most `max_batch` instances at a time and join the outputs; checks that the model kept their number."""
    label = metrics.bounded(loaded.model)
    if not loaded.signature.batched:
        return _timed(loaded, run, tensors, instances, label)
    pieces = [
        _timed(
            loaded,
            run,
            {name: tensor[start : start + loaded.max_batch] for name, tensor in tensors.items()},
            size,
            label,
        )
        for start in range(0, instances, loaded.max_batch)
        for size in (min(loaded.max_batch, instances - start),)
    ]
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _timed(loaded: Loaded, run: Run, tensors: Tensors, instances: int, label: str) -> Tensors:
    started = time.perf_counter()
    outputs = run(tensors)
    version = str(loaded.version)
    metrics.INFERENCE_SECONDS.labels(loaded.runtime, label, version).observe(time.perf_counter() - started)
    metrics.BATCH_INSTANCES.labels(label, version).observe(instances)
    if loaded.signature.batched and any(len(tensor) != instances for tensor in outputs.values()):
        raise PredictionFailed(
            f"the model answered a batch of {instances} instances with another number of predictions"
        )
    return outputs
