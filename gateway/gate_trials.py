"""Trying a version at a label's gates: its golden samples go through the queue to the workers that would serve it.

Synchronous, for a thread: a trial takes as long as its calls, and no longer than `TRIAL_SECONDS` altogether.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from gateway.label_gates import AccuracyGate, AgreementGate, Gates, GoldenGate, LatencyGate, Outcome, ShadowGate
from model_store import samples
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import SluiceError
from model_store.evaluations import evaluation_of
from model_store.golden import GoldenInvalid
from model_store.registry import Served, served
from model_store.samples import Kind
from model_store.shadows import agreement
from model_store.signature import Tensor, Tensors
from model_store.variant_policies import VariantPolicy
from workers.files.sample_archives import pieces
from workers.preparation import parity
from workers.preparation.acceptance import Acceptance
from workers.preparation.parity import SINGLE, Difference, Tolerance
from workers.protocols.answers import AnswerUnreadable, outputs_of
from workers.protocols.body import Body, Dialect
from workers.protocols.open_inference_caller import write_request
from workers.publisher import Publisher
from workers.rehearsal import NobodyServes, Rehearsal, RehearsalFailed, RehearsalLate
from workers.settings import QueueSettings
from workers.warm_up import golden_samples, stage_of

TRIAL_SECONDS = 30.0
# Of uploaded samples; each is asked of two versions.
MOST_COMPARED = 512
PIECE_ROWS = 64

Gate = Literal["golden", "agreement", "accuracy", "latency", "shadow"]


class TrialStopped(Exception):
    """A trial that came to no result; the message says why."""


NO_RESULT = (TrialStopped, NobodyServes, RehearsalFailed, RehearsalLate, GoldenInvalid, AnswerUnreadable, SluiceError)


@dataclass(frozen=True, slots=True)
class Trials:
    """What trying takes."""

    sessions: Sessions
    artifacts: Artifacts
    settings: QueueSettings
    publisher: Publisher

    def run(self, gates: Gates, model: str, version: int, predecessor: int | None) -> list[Outcome]:
        """The outcome of every gate that is given; `predecessor` is what the label points to.

        Raises ModelNotFound, and VersionNotReady for a version that is not prepared.
        """
        trial = _Trial(self, self.found(model, version), predecessor, time.monotonic() + TRIAL_SECONDS)
        tries: dict[Gate, Callable[[], Outcome]] = {}
        if gates.golden is not None:
            tries["golden"] = partial(trial.golden, gates.golden)
        if gates.agreement is not None:
            tries["agreement"] = partial(trial.agreement, gates.agreement)
        if gates.accuracy is not None:
            tries["accuracy"] = partial(trial.accuracy, gates.accuracy)
        if gates.latency is not None:
            tries["latency"] = partial(trial.latency, gates.latency)
        if gates.shadow is not None:
            tries["shadow"] = partial(trial.shadow, gates.shadow)
        return [_outcome(gate, run) for gate, run in tries.items()]

    def found(self, model: str, version: int) -> Served:
        """The version as a worker loads it."""
        with transaction(self.sessions, write=False) as session:
            return served(session, model, version)


class _Trial:
    """One version at its gates, until a moment of this process's clock."""

    def __init__(self, with_: Trials, found: Served, predecessor: int | None, until: float) -> None:
        self._with = with_
        self._found = found
        self._predecessor = predecessor
        self._until = until

    def golden(self, gate: GoldenGate) -> Outcome:
        """Whether the golden samples are answered as they were."""
        inputs, expected = self._samples()
        difference = self._judge(gate, expected, self._answers(self._found, inputs))
        instances = _instances(self._found, inputs)
        return Outcome(
            gate="golden",
            passed=difference.reason is None,
            detail=difference.reason or f"{instances} golden samples are answered within the tolerance",
            figures={
                "instances": instances,
                "max_abs_difference": _figure(difference.max_abs),
                "max_rel_difference": _figure(difference.max_rel),
                "top1_agreement": difference.top1_agreement,
            },
        )

    def agreement(self, gate: AgreementGate) -> Outcome:
        """Whether the version and the label's own agree."""
        if self._predecessor in {None, self._found.number}:
            return Outcome(gate="agreement", passed=True, detail="there is no other version to agree with", figures={})
        other = self._with.found(self._found.model, self._predecessor or 0)
        if other.signature.inputs != self._found.signature.inputs:
            raise TrialStopped(f"version {other.number} takes other inputs; move the label without this gate")
        agreed = instances = 0
        with contextlib.ExitStack() as held:
            kind, compared = self._compared(held, other)
            for inputs in compared:
                same, asked = agreeing(self._answers(other, inputs), self._answers(self._found, inputs))
                agreed, instances = agreed + same, instances + asked
                # What is left is the other gates' time.
                if instances >= MOST_COMPARED or self._left() < TRIAL_SECONDS / 2:
                    break
        share = agreed / instances if instances else 0.0
        return Outcome(
            gate="agreement",
            passed=share >= gate.least,
            detail=f"{agreed} of {instances} {kind} samples are answered as version {other.number} answers them",
            figures={"instances": instances, "agreed": agreed, "share": round(share, 4), "predecessor": other.number},
        )

    def accuracy(self, gate: AccuracyGate) -> Outcome:
        """How often the version was right when it was last evaluated."""
        model, number = self._found.model, self._found.number
        with transaction(self._with.sessions, write=False) as session:
            evaluation = evaluation_of(session, model, number)
            digest = samples.find(session, model, Kind.LABELLED)
        if evaluation is None:
            raise TrialStopped(f"no evaluation: sluice models evaluate {model} {number}")
        if evaluation.samples_digest != digest:
            raise TrialStopped(
                f"its evaluation is of samples that were replaced: sluice models evaluate {model} {number}"
            )
        return Outcome(
            gate="accuracy",
            passed=evaluation.accuracy >= gate.least,
            detail=f"{evaluation.right} of {evaluation.instances} labelled samples were answered right",
            figures={
                "instances": evaluation.instances,
                "right": evaluation.right,
                "accuracy": round(evaluation.accuracy, 4),
            },
        )

    def latency(self, gate: LatencyGate) -> Outcome:
        """How long a sample takes, one call after the other, once it is loaded."""
        inputs, _ = self._samples()
        body = write_request(_first(self._found, inputs), self._found.signature)
        seconds: list[float] = []
        with self._rehearsal(self._found) as rehearsal:
            rehearsal.ask(body, self._left())
            while len(seconds) < gate.calls and self._left() > 0:
                seconds.append(rehearsal.ask(body, self._left()).seconds)
        if len(seconds) < gate.calls:
            raise TrialStopped(f"only {len(seconds)} of {gate.calls} calls were answered in {TRIAL_SECONDS:g} s")
        p50, p99 = (1000 * sorted(seconds)[math.ceil(share * len(seconds)) - 1] for share in (0.5, 0.99))
        passed = p99 <= gate.p99_ms
        return Outcome(
            gate="latency",
            passed=passed,
            detail=f"p99 is {p99:.3g} ms over {gate.calls} calls, {'within' if passed else 'above'} {gate.p99_ms:g} ms",
            figures={"calls": gate.calls, "p50_ms": _figure(p50), "p99_ms": _figure(p99)},
        )

    def shadow(self, gate: ShadowGate) -> Outcome:
        """What came of the version as the model's shadow so far."""
        with transaction(self._with.sessions, write=False) as session:
            requests, share = agreement(session, self._found.model, self._found.number)
        enough = requests >= gate.requests
        return Outcome(
            gate="shadow",
            passed=enough and share >= gate.least,
            detail=f"as the shadow it agreed on {share:.2%} of {requests} live requests"
            + ("" if enough else f"; {gate.requests} are asked for"),
            figures={"requests": requests, "share": round(share, 4)},
        )

    def _samples(self) -> tuple[Tensors, Tensors]:
        if self._found.golden_digest is None:
            raise TrialStopped(
                "the version has no golden samples: they were too large to keep, or it is older than they"
            )
        return golden_samples(self._with.artifacts, self._found.golden_digest)

    def _compared(self, held: contextlib.ExitStack, other: Served) -> tuple[str, Iterable[Tensors]]:
        """What both versions are asked, a piece at a time, and what it is called: as callers send it, where there are
        such samples. Random numbers are close calls for most networks."""
        found = self._found
        with transaction(self._with.sessions, write=False) as session:
            uploaded = {
                kind: samples.find(session, found.model, kind, uploaded=True) for kind in (Kind.INPUTS, Kind.LABELLED)
            }
        for kind, digest in uploaded.items():
            if digest is not None and found.signature.batched:
                path = held.enter_context(self._with.artifacts.opened(digest))
                rows = max(1, min(PIECE_ROWS, found.max_batch, other.max_batch))
                read = pieces(path, found.signature, labelled=kind is Kind.LABELLED, rows=rows)
                return f"uploaded ({kind})", (piece.inputs for piece in read)
        return "golden", [self._samples()[0]]

    def _answers(self, found: Served, inputs: Tensors) -> Tensors:
        with self._rehearsal(found) as rehearsal:
            answer = rehearsal.ask(write_request(inputs, found.signature), self._left()).answer
        return outputs_of(Body(answer.body, Dialect.OPEN_INFERENCE, answer.head))

    def _rehearsal(self, found: Served) -> Rehearsal:
        return Rehearsal(self._with.settings, self._with.publisher, stage_of(found, self._with.settings))

    def _judge(self, gate: GoldenGate, expected: Tensors, answered: Tensors) -> Difference:
        """By the gate's own tolerance, or as preparation accepted the variant that serves."""
        pairs = [(expected, answered)]
        if gate.absolute is not None or gate.relative is not None:
            return parity.compare(pairs, Tolerance(gate.absolute or 0.0, gate.relative or 0.0))
        known = self._found.environment
        policy = VariantPolicy()
        if known is not None:
            policy = VariantPolicy(absolute=known.absolute, relative=known.relative, top1_floor=known.top1_floor)
        return Acceptance(policy, half=False).judge(self._found.variant, pairs).difference

    def _left(self) -> float:
        return max(0.0, self._until - time.monotonic())


def agreeing(own: Tensors, others: Tensors) -> tuple[int, int]:
    """Of how many instances the answers agree, and of how many there are any; other names or shapes never agree."""
    if own.keys() != others.keys() or any(own[name].shape != others[name].shape for name in own):
        return 0, max((len(np.atleast_1d(tensor)) for tensor in own.values()), default=0)
    alike = [_alike(own[name], others[name]) for name in own]
    rows = max((len(same) for same in alike), default=0)
    agreed = sum(all(same[row] if len(same) == rows else all(same) for same in alike) for row in range(rows))
    return agreed, rows


def _alike(own: Tensor, other: Tensor) -> list[bool]:
    """By instance, whether two outputs agree."""
    same: object
    if own.dtype.kind != "f" or other.dtype.kind not in "biuf":
        same = own == other
    elif own.ndim > 1 and own.shape[-1] > 1:
        # The largest of what holds a NaN is that: a version that answers nothing else would agree in part.
        missing = np.isnan(own).any(-1) == np.isnan(other).any(-1)
        same = missing & (own.argmax(-1) == other.argmax(-1))
    else:
        same = np.isclose(other, own, rtol=SINGLE.relative, atol=SINGLE.absolute, equal_nan=True)
    rows = np.atleast_1d(np.asarray(same, bool))
    return [bool(row.all()) for row in rows]


def _outcome(gate: Gate, run: Callable[[], Outcome]) -> Outcome:
    """A trial without a result is not passed, and says why."""
    try:
        return run()
    except NO_RESULT as error:
        return Outcome(gate=gate, passed=False, detail=str(error), figures={})


def _first(found: Served, inputs: Tensors) -> Tensors:
    """The first instance, where the model takes several."""
    if not found.signature.batched:
        return inputs
    return {spec.name: inputs[spec.name][:1] if spec.batched else inputs[spec.name] for spec in found.signature.inputs}


def _instances(found: Served, inputs: Mapping[str, Tensor]) -> int:
    batched = [len(inputs[spec.name]) for spec in found.signature.inputs if spec.batched]
    return max(batched, default=1)


def _figure(value: float) -> float | None:
    """Four significant digits; JSON has no infinity."""
    return float(f"{value:.4g}") if math.isfinite(value) else None
