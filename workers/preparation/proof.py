"""Proving and measuring the variants of a loaded model, and choosing the one that serves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from model_store.signature import Signature, Tensors
from workers.errors import PredictionFailed, RunnerFailed
from workers.preparation import measure, parity
from workers.preparation.acceptance import Acceptance
from workers.preparation.candidates import Candidate
from workers.preparation.findings import refused
from workers.preparation.measure import Measured
from workers.preparation.samples import Samples, repeated
from workers.preparation.uploads import Loaded
from workers.settings import WorkerSettings

# Sizes to try for free dimensions, by rank: images want room for their strides, sequences are short.
FREE_SIZES = {1: (16,), 2: (16, 64), 3: (16, 64)}
IMAGE_SIZES = (64, 224)
SEVERAL = 5
AS_UNBOUNDED = "for some inputs the model answers NaN or infinity, and this variant does so at the same places"
# Batches that variants are compared at, beside the largest worth running.
COMPARED = (1, 8, 32)
# Drawn in this process, which has no limit on its memory, and held several times over.
DRAWN_BYTES = 256 * 1024**2


@dataclass(frozen=True, slots=True)
class Reference:
    """Inputs with the model's own outputs: a single instance, several, and several around zero.

    `row_wise` says whether the answer for an instance is the same whatever else is in the batch; `signature` has the
    dtypes that were observed, `tolerance` is what float variants are accepted within. `further` are more of such pairs
    (evidence.py), which `samples` were drawn for.
    """

    pairs: list[tuple[Tensors, Tensors]]
    row_wise: bool
    signature: Signature
    tolerance: parity.Tolerance
    samples: Samples
    further: tuple[tuple[Tensors, Tensors], ...] = ()

    @property
    def single(self) -> tuple[Tensors, Tensors]:
        return self.pairs[0]


class Original(Protocol):
    """What gives the model's own outputs: an upload, or one of its signatures."""

    def reference(self, tensors: Tensors) -> Tensors:
        """Raises PredictionFailed, RunnerFailed."""


def reference(upload: Original, loaded: Loaded, seed: int) -> Reference:
    """Runs the model on seeded random inputs.

    Raises UploadRefused: prediction_failed, signature, non_finite_output, not_repeatable; and RunnerFailed.
    """
    samples, first = _first_that_works(upload, loaded, seed)
    batch = SEVERAL if loaded.signature.batched else 1
    inputs, around_zero = samples.draw(batch), samples.draw(batch, normal=True)
    try:
        pairs = [first, (inputs, upload.reference(inputs))]
    except PredictionFailed as error:
        raise refused("prediction_failed", f"the model fails on {batch} random instances: {error}") from error
    # Around zero, a model may rightly fail: it may take what it is given for a position, or for a logarithm's argument.
    with contextlib.suppress(PredictionFailed):
        pairs.append((around_zero, upload.reference(around_zero)))
    signature = parity.observed(loaded.signature, first[1])
    for inputs, outputs in pairs:
        if reason := parity.misfit(signature, inputs, outputs):
            raise refused("signature", reason)
    if not all(parity.all_finite(outputs) for _, outputs in pairs[:2]):
        raise refused("non_finite_output", "the model answers NaN or infinity to ordinary inputs between 0 and 1")
    # A model that remembers earlier calls, or draws lots, would tell one caller about another, or nothing.
    if parity.compare([(first[1], upload.reference(first[0]))], _tolerance(loaded)).reason is not None:
        raise refused("not_repeatable", "the model answers the same input differently from call to call")
    row_wise = signature.batched and _is_row_wise(upload, loaded, pairs[1])
    return Reference(pairs, row_wise, signature, _tolerance(loaded), samples)


def prove(candidate: Candidate, known: Reference, acceptance: Acceptance) -> None:
    """Loads the variant and compares it; its figures say whether it is accepted, or why not. Never raises for those."""
    figures = candidate.figures
    try:
        figures.load_seconds = candidate.load()
        pairs = [(outputs, candidate.run(inputs)) for inputs, outputs in (*known.pairs, *known.further)]
    except (PredictionFailed, RunnerFailed) as error:
        figures.reason = error.message
        return
    verdict = acceptance.judge(candidate.name, pairs)
    difference = verdict.difference
    figures.max_abs_difference, figures.max_rel_difference = difference.max_abs, difference.max_rel
    figures.top1_agreement, figures.reason = difference.top1_agreement, difference.reason
    figures.accepted, figures.quantised = difference.reason is None, verdict.quantised
    if figures.accepted and not figures.quantised and not all(parity.all_finite(outputs) for outputs, _ in pairs):
        figures.detail = "; ".join(filter(None, (figures.detail, AS_UNBOUNDED)))


def time(candidate: Candidate, known: Reference, settings: WorkerSettings, room_bytes: int) -> Measured:
    """Measures an accepted variant at growing batches, as far as `room_bytes` of memory go, and writes its figures.

    Raises UploadRefused (inference_too_slow), and what the smallest batch raises: PredictionFailed, RunnerFailed.
    """
    inputs, outputs = known.single

    def seconds_at(batch: int) -> float:
        tensors = repeated(inputs, batch)
        return candidate.seconds(tensors) if batch == 1 else candidate.seconds_within(tensors, room_bytes)

    padding: tuple[measure.Padding, ...] = ()
    if known.row_wise:
        seconds = measure.ascend(seconds_at, measure.largest_batch(settings.max_batch, 1, inputs, outputs))
        with contextlib.suppress(PredictionFailed, RunnerFailed):
            padding = measure.compare_padding(seconds_at, seconds)
    else:
        seconds = {1: candidate.seconds(inputs)}
    _note(candidate, seconds)
    if seconds[1] > settings.hang_limit_seconds:
        raise refused("inference_too_slow", f"one instance takes {seconds[1]:.1f} s")
    return Measured(seconds, padding)


def compared(known: Reference, measured: Measured, settings: WorkerSettings) -> list[int]:
    """Sizes of batches that variants are compared at, as far as nothing hangs over the largest of them."""
    inputs, outputs = known.single
    if not known.row_wise:
        return [1]
    most = measure.largest_batch(settings.max_batch, 1, inputs, outputs)
    patience = settings.hang_limit_seconds / measured.seconds[1]
    return [size for size in sorted({*COMPARED, measured.max_batch}) if size == 1 or size <= min(most, patience)]


def time_beside(candidate: Candidate, known: Reference, sizes: Iterable[int]) -> None:
    """Measures a variant that will not serve at a few sizes, to tell what was gained. Raises as `time` does."""
    seconds: dict[int, float] = {}
    for size in sizes:
        try:
            seconds[size] = candidate.seconds(repeated(known.single[0], size))
        except (PredictionFailed, RunnerFailed):
            if not seconds:
                raise
            break
    _note(candidate, seconds)


def _note(candidate: Candidate, seconds: Mapping[int, float]) -> None:
    candidate.figures.latency_ms = {batch: value * 1000 for batch, value in seconds.items()}


def _is_row_wise(upload: Original, loaded: Loaded, several: tuple[Tensors, Tensors]) -> bool:
    """Whether the last of several instances gets its answer also when it is alone.

    A model that mixes instances (a softmax over the batch, say) may be served, but never with those of other callers.
    """
    inputs, outputs = several
    alone = upload.reference({name: tensor[-1:] for name, tensor in inputs.items()})
    within = {name: output[-1:] for name, output in outputs.items()}
    return parity.compare([(within, alone)], _tolerance(loaded)).reason is None


def _tolerance(loaded: Loaded) -> parity.Tolerance:
    return parity.HALF if loaded.half else parity.SINGLE


def _first_that_works(upload: Original, loaded: Loaded, seed: int) -> tuple[Samples, tuple[Tensors, Tensors]]:
    """Samples of a size that the model takes, and the first pair: free dimensions are not free in every model."""
    failure: PredictionFailed | None = None
    for size in _sizes(loaded):
        samples = Samples(loaded.signature, loaded.ranges, size, np.random.default_rng(seed))
        if samples.bytes_of(SEVERAL) > DRAWN_BYTES:
            break
        inputs = samples.draw(1)
        try:
            return samples, (inputs, upload.reference(inputs))
        except PredictionFailed as error:
            failure = error
    if failure is None:
        raise refused("signature", f"{SEVERAL} instances take more than {DRAWN_BYTES} bytes")
    raise refused("prediction_failed", f"the model fails on a random instance: {failure}")


def _sizes(loaded: Loaded) -> tuple[int, ...]:
    shapes = [spec.shape[1:] for spec in loaded.signature.inputs if None in spec.shape[1:]]
    rank = max((len(shape) + 1 for shape in shapes), default=1)
    return FREE_SIZES.get(rank, IMAGE_SIZES)
