"""Batches: predictions of many callers on one version, as few inferences as possible, each answer for its own input."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from model_store.batching import Batching
from model_store.errors import SluiceError
from model_store.signature import Signature, Tensor, Tensors
from model_store.standings import Standing
from monitoring import metrics
from workers.errors import DecodingUnavailable, InputInvalid, PredictionFailed, RunnerFailed
from workers.origin import NOWHERE, Origin
from workers.protocols.body import Body
from workers.protocols.contract import Contract, NamedRequest, Request
from workers.protocols.dialects import GRAMMARS
from workers.protocols.file_reading import FilesAside
from workers.runtimes.predictor import Predictor
from workers.tallies import AT_ONCE, Course, Tallies

# What takes less than this may run between two reads of the loop; anything slower would hold up other versions.
INLINE_SECONDS = 0.002
# How much longer instances may take singly than in the best batch, for a version whose requests are read ahead.
AHEAD = 1.25
# Of files, kilobytes may become megabytes of numbers: where any may come, so many are read before an inference.
BATCH_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Loaded:
    """A predictor together with what preparation measured of its version."""

    contract: Contract
    predictor: Predictor
    max_batch: int
    max_parallelism: int
    batch_seconds: float | None
    batching: Batching | None = None
    origin: Origin = NOWHERE
    # As it was loaded; compared with what SQL says later.
    standing: Standing | None = None
    # The version's other signatures by their names, in the same process: each has its own contract and batches.
    further: Mapping[str, Loaded] = field(default_factory=dict)
    # Held during an inference that runs in a thread: one of a version at a time, while another thread reads and formats
    # what belongs to the next.
    turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    # Those of the process: what ran is counted there, and stays when the version leaves memory.
    tallies: Tallies = field(default_factory=Tallies, repr=False, compare=False)

    @property
    def model(self) -> str:
        return self.contract.model

    @property
    def version(self) -> int:
        return self.contract.version

    @property
    def memory_bytes(self) -> int:
        return self.predictor.memory_bytes

    @property
    def signature(self) -> Signature:
        return self.contract.signature

    @property
    def runtime(self) -> str:
        return self.predictor.runtime

    @property
    def reads_ahead(self) -> bool:
        """Whether the next requests may be read and parsed while a batch runs.

        They could not be joined by later ones then: only where a larger batch is hardly any faster than a small one.
        """
        if self.batching is None or self.batch_seconds is None:
            return False
        return self.batching.seconds(1) * self.max_batch < AHEAD * self.batch_seconds

    @property
    def portion(self) -> int:
        """How many predictions to answer at a time: whole batches, and enough of them that sending is worth it."""
        if not self.batch_seconds:
            return self.max_batch
        return self.max_batch * math.ceil(INLINE_SECONDS / self.batch_seconds)

    def padded(self, instances: int) -> int:
        """The number of instances to run so many as: more, where that was measured to be faster."""
        if self.batching is None or not self.signature.batched:
            return instances
        return self.batching.padded(instances)

    def inline(self, predictions: int) -> bool:
        """Whether so many predictions, taken for one instance each, are short enough to run in the loop."""
        return self.runtime == "onnx" and self.batch_seconds is not None and self._seconds(predictions) < INLINE_SECONDS

    def _seconds(self, instances: int) -> float:
        """What the inferences for so many instances take together; full batches and the rest."""
        batch_seconds = self.batch_seconds or 0.0
        full, rest = divmod(instances, self.max_batch)
        if self.batching is None:
            return batch_seconds * (full + (rest > 0))
        return batch_seconds * full + (self.batching.seconds(rest) if rest else 0.0)

    def run(self, tensors: Tensors) -> Tensors:
        return self.predictor.run(tensors)

    def close(self) -> None:
        self.predictor.close()


Outcome = Body | SluiceError
"""The body of a 200 answer, or the error that took its place."""

RunOne = Callable[[Tensors], Tensors]


class Run(Protocol):
    """An inference of what was loaded, or of one of its further signatures."""

    def __call__(self, tensors: Tensors, of: Loaded | None = None, /) -> Tensors: ...


def predict_all(
    loaded: Loaded, bodies: Sequence[Body], run: Run | None = None, contract: Contract | None = None
) -> list[Outcome]:
    """Answer each body, in order; one that does not fit, or that the model fails on, spoils no other.

    `run` stands for `loaded.run` where each inference is to be watched, `contract` for the version's own where the
    bodies are to be read by another. Raises RunnerFailed where the runtime itself died: nothing is known about any of
    the inputs then.
    """
    terms = loaded.contract if contract is None else contract
    if terms.files is not None and terms.input_specification is not None:
        return _predict_some(loaded, bodies, run, terms, BATCH_BYTES)
    return _predict_some(loaded, bodies, run, terms, math.inf)


def _predict_some(
    loaded: Loaded, bodies: Sequence[Body], run: Run | None, terms: Contract, most_bytes: float
) -> list[Outcome]:
    """The same, where no more numbers than that wait for their inference; a request alone may have more."""
    outcomes: list[Outcome] = []
    requests: list[Request] = []
    found: list[SluiceError | None] = []
    waiting_bytes = 0
    began = time.perf_counter_ns()
    for body in bodies:
        try:
            requests.append(GRAMMARS[body.dialect].parse(body, terms))
            found.append(None)
        except (InputInvalid, DecodingUnavailable, FilesAside) as error:
            found.append(error)
            continue
        if most_bytes < math.inf:
            waiting_bytes += sum(tensor.nbytes for tensor in requests[-1].tensors.values())
            if waiting_bytes >= most_bytes:
                outcomes += _outcomes(loaded, requests, found, run, began)
                requests, found, waiting_bytes = [], [], 0
                began = time.perf_counter_ns()
    return outcomes + _outcomes(loaded, requests, found, run, began)


def _outcomes(
    loaded: Loaded, requests: Sequence[Request], found: Sequence[SluiceError | None], run: Run | None, began: int
) -> list[Outcome]:
    outcomes = iter(predict_requests(loaded, requests, run, began))
    return [next(outcomes) if error is None else error for error in found]


def predict_requests(
    loaded: Loaded, requests: Sequence[Request], run: Run | None = None, began: int | None = None
) -> list[Outcome]:
    """The same for requests that were read already; `began` is when, by the counter of nanoseconds, reading began."""
    read = time.perf_counter_ns()
    read_ns = 0 if began is None or not requests else (read - began) // len(requests)
    turn = AT_ONCE if run is None else loaded.turn
    outcomes: list[Outcome | None] = [None] * len(requests)
    groups: dict[tuple[str, tuple[tuple[int, ...], ...]], list[tuple[int, Request]]] = {}
    for index, request in enumerate(requests):
        # Two signatures may take the same shapes: their instances are never put together.
        named = request.terms.named if isinstance(request, NamedRequest) else ""
        batched = (loaded.further[named] if named else loaded).signature.batched
        key = _shape_key(request, alone=not batched, index=index)
        groups.setdefault((named, key), []).append((index, request))
    for (named, _), members in groups.items():
        asked, run_one = _further(loaded, named, run) if named else (loaded, run or loaded.run)
        course = Course(turn, read_ns * len(members), time.perf_counter_ns() - read)
        for (index, _), outcome in zip(
            members, _predict_group(asked, run_one, [request for _, request in members], course), strict=True
        ):
            outcomes[index] = outcome
    return [outcome if outcome is not None else PredictionFailed("the request was not run") for outcome in outcomes]


def _further(loaded: Loaded, named: str, run: Run | None) -> tuple[Loaded, RunOne]:
    """One of the further signatures, which counts for the version, and its inference."""
    found = replace(loaded.further[named], tallies=loaded.tallies)
    return found, found.run if run is None else lambda tensors: run(tensors, found)


def _shape_key(request: Request, *, alone: bool, index: int) -> tuple[tuple[int, ...], ...]:
    # Requests share an inference where all but the first dimension agree; without a batch dimension none can.
    shapes = tuple(tensor.shape[1:] for tensor in request.tensors.values())
    return (*shapes, (index,)) if alone else shapes


def _predict_group(loaded: Loaded, run: RunOne, requests: Sequence[Request], course: Course) -> list[Outcome]:
    began = time.perf_counter_ns()
    try:
        return _predict_together(loaded, run, requests, course)
    except RunnerFailed:
        raise
    except SluiceError as error:
        if len(requests) == 1:
            return [error]
        # One bad input must not fail its neighbours: find it by running each alone.
        outcomes: list[Outcome] = []
        for request in requests:
            waited_ns = course.waited_ns + time.perf_counter_ns() - began
            alone = Course(course.turn, course.input_ns // len(requests), waited_ns)
            outcomes += _predict_group(loaded, run, [request], alone)
        return outcomes
    finally:
        loaded.tallies.ran((loaded.model, loaded.version), course)


def _predict_together(loaded: Loaded, run: RunOne, requests: Sequence[Request], course: Course) -> list[Outcome]:
    began = time.perf_counter_ns()
    outputs = _run(loaded, run, _joined(requests), sum(request.instances for request in requests), course)
    ran = time.perf_counter_ns()
    outcomes = _formatted(outputs, loaded.contract, requests)
    course.input_ns += ran - began - course.turn_ns - course.infer_ns
    course.output_ns = time.perf_counter_ns() - ran
    course.answered = [type(outcome) for outcome in outcomes].count(Body)
    return outcomes


def _formatted(outputs: Tensors, contract: Contract, requests: Sequence[Request]) -> list[Outcome]:
    if len(requests) == 1:
        return [_format(outputs, contract, requests[0])]
    outcomes, start = [], 0
    for request in requests:
        stop = start + request.instances
        part = {name: tensor[start:stop] for name, tensor in outputs.items()}
        outcomes.append(_format(part, contract, request))
        start = stop
    return outcomes


def _format(outputs: Tensors, contract: Contract, request: Request) -> Outcome:
    try:
        data, dialect, head, _ = request.format(outputs, contract)
    except SluiceError as error:
        return error
    return Body(data, dialect, head, request.instances)


def _joined(requests: Sequence[Request]) -> Tensors:
    if len(requests) == 1:
        return {name: _aligned(tensor) for name, tensor in requests[0].tensors.items()}
    return {name: np.concatenate([request.tensors[name] for request in requests]) for name in requests[0].tensors}


def _aligned(tensor: Tensor) -> Tensor:
    # A view of a request's bytes may begin anywhere; code compiled for whole vectors may not survive that. What is
    # joined with others is copied anyway.
    return tensor if tensor.flags.aligned else tensor.copy()


def _run(loaded: Loaded, run: RunOne, tensors: Tensors, instances: int, course: Course) -> Tensors:
    """Run at most `max_batch` instances at a time and join the outputs; checks that the model kept their number."""
    if instances <= loaded.max_batch or not loaded.signature.batched:
        return _timed(loaded, run, tensors, instances, course)
    pieces = [
        _timed(
            loaded,
            run,
            {name: tensor[start : start + loaded.max_batch] for name, tensor in tensors.items()},
            size,
            course,
        )
        for start in range(0, instances, loaded.max_batch)
        for size in (min(loaded.max_batch, instances - start),)
    ]
    if len(pieces) == 1:
        return pieces[0]
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}


def _timed(loaded: Loaded, run: RunOne, tensors: Tensors, instances: int, course: Course) -> Tensors:
    size = loaded.padded(instances)
    given = tensors if size == instances else _filled(tensors, instances, size)
    asked = time.perf_counter_ns()
    with course.turn:
        started = time.perf_counter_ns()
        outputs = run(given)
        ended = time.perf_counter_ns()
    if loaded.signature.batched and any(len(tensor) != size for tensor in outputs.values()):
        raise PredictionFailed(f"the model answered a batch of {size} instances with another number of predictions")
    course.ran(started - asked, ended - started, instances)
    metrics.batch_metrics(loaded.runtime, loaded.model, loaded.version).observe((ended - started) / 1e9, instances)
    return outputs if size == instances else {name: tensor[:instances] for name, tensor in outputs.items()}


def _filled(tensors: Tensors, instances: int, size: int) -> Tensors:
    """The batch with its last instance repeated: one that the model takes, where zeros might be none."""
    return {
        name: np.concatenate([tensor, np.repeat(tensor[-1:], size - instances, axis=0)])
        for name, tensor in tensors.items()
    }
