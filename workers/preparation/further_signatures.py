"""A SavedModel's further signatures on trial: each runs as it would be served, beside the default in one process.

One that fails, answers otherwise from call to call, or kills its runner is left out with the reason, and refuses no
upload. There is nothing to compare them with: what is served is the SavedModel itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from model_store.errors import SluiceError
from model_store.further_signatures import FurtherSignature, FurtherSignatures
from model_store.signature import Tensors
from model_store.variant_policies import FASTEST, SAVEDMODEL, VariantPolicy
from workers.errors import LockdownUnavailable, PredictionFailed, PredictorTooLarge
from workers.preparation import measure, proof
from workers.preparation.candidates import GRACE_SECONDS, Candidate
from workers.preparation.findings import refused
from workers.preparation.report import SignatureFigures, VariantFigures
from workers.preparation.room import check_room
from workers.preparation.samples import repeated
from workers.preparation.trial import median_seconds
from workers.preparation.uploads import Loaded
from workers.runner.process import Runner
from workers.runtimes.tensorflow import ARCHIVE, load_arguments
from workers.settings import WorkerSettings


class Beside:
    """What became of a version's signatures beside its default."""

    def __init__(self, figures: Sequence[SignatureFigures] = (), memory_bytes: int = 0) -> None:
        """`memory_bytes` is what the process takes that serves them."""
        self.figures = list(figures)
        self.memory_bytes = memory_bytes

    @property
    def signatures(self) -> FurtherSignatures:
        """Those that are served."""
        listed = tuple(one.found for one in self.figures if one.found is not None)
        return FurtherSignatures(listed, tuple(one.name for one in self.figures if one.alias))

    @property
    def told(self) -> str:
        """Each with what became of it."""
        return ", ".join(
            f"{one.name!a}: {one.reason or ('the default' if one.alias else 'ok')}" for one in self.figures
        )

    def first(self, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates in the order of preference: only the SavedModel itself has further signatures."""
        return sorted(candidates, key=lambda one: bool(self.signatures.listed) and one.name != SAVEDMODEL)

    def serve(self, chosen: VariantFigures) -> str:
        """Counts the memory of all, or leaves out what the variant that serves does not have; returns why that serves,
        as the end of a sentence."""
        if chosen.name == SAVEDMODEL:
            chosen.memory_bytes = max(chosen.memory_bytes or 0, self.memory_bytes)
            names = ", ".join(f"{one.signature.name!a}" for one in self.signatures.listed)
            return f"; it alone has the signatures {names}" if names else ""
        reason = f"{chosen.name} serves, which has the default signature only"
        self.figures = [
            replace(one, found=None, reason=reason) if one.found is not None else one for one in self.figures
        ]
        return ""


def beside(
    start: Callable[[], Runner],
    loaded: Loaded,
    candidates: Iterable[Candidate],
    policy: VariantPolicy,
    settings: WorkerSettings,
    room_bytes: int,
    seed: int,
) -> Beside:
    """Tries the signatures beside the default, where the variant that has them may serve.

    Raises LockdownUnavailable, and what `start` does.
    """
    known = [SignatureFigures(name, alias=True) for name in loaded.aliases]
    known += [SignatureFigures(name, reason=reason) for name, reason in loaded.unfit]
    own = next((one for one in candidates if one.name == SAVEDMODEL and one.figures.accepted), None)
    names = [one.signature.name for one in loaded.further]
    if own is None or policy.serve not in (FASTEST, SAVEDMODEL):
        serves = "no savedmodel was accepted" if own is None else f"the policy has {policy.serve} serve"
        reason = f"{serves}, and nothing else has more than the default signature"
        return Beside([*known, *(SignatureFigures(name, reason=reason) for name in names)])
    trial = Trial(start, own.path, loaded, settings, room_bytes)
    return Beside([*trial.tried(seed), *known], trial.memory_bytes)


class Trial:
    """One preparation's; `start` gives it runners, `archive` is the checked SavedModel that was `loaded`.

    `memory_bytes` is what its process took at most, when all that passed had run.
    """

    def __init__(
        self,
        start: Callable[[], Runner],
        archive: Path,
        loaded: Loaded,
        settings: WorkerSettings,
        room_bytes: int,
    ) -> None:
        self._start = start
        self._archive = archive
        self._default = loaded.signature
        self._further = loaded.further
        self._settings = settings
        self._room_bytes = room_bytes
        self._runner: Runner | None = None
        self._until = time.monotonic() + settings.preparation_seconds
        self.memory_bytes = 0

    def tried(self, seed: int) -> list[SignatureFigures]:
        """What became of each; raises LockdownUnavailable, and what `start` does."""
        try:
            return [self._in_time(loaded, seed) for loaded in self._further]
        finally:
            self._end()

    def _in_time(self, loaded: Loaded, seed: int) -> SignatureFigures:
        # Each may hang until its runner is killed: sixteen such would keep a worker for an hour.
        if time.monotonic() > self._until:
            return SignatureFigures(loaded.signature.name, reason="those before it took all the time that there was")
        return self._tried(loaded, seed)

    def _tried(self, loaded: Loaded, seed: int) -> SignatureFigures:
        name = loaded.signature.name
        try:
            known = proof.reference(_Original(self, name), loaded, seed)
            seconds = self._measured(name, known)
        except LockdownUnavailable:
            raise
        except SluiceError as error:
            # Whatever it left behind is not held against the next one.
            self._end()
            return SignatureFigures(name, reason=error.message)
        signature = replace(known.signature, name=name)
        return SignatureFigures(name, FurtherSignature(signature, measure.best_batch(seconds)), seconds[1] * 1000)

    def _measured(self, name: str, known: proof.Reference) -> dict[int, float]:
        inputs, outputs = known.single

        def seconds_at(batch: int) -> float:
            tensors = inputs if batch == 1 else repeated(inputs, batch)
            seconds = median_seconds(lambda: self.run(name, tensors))
            self._weigh(batch)
            return seconds

        most = measure.largest_batch(self._settings.max_batch, 1, inputs, outputs) if known.row_wise else 1
        seconds = measure.ascend(seconds_at, most)
        if seconds[1] > self._settings.hang_limit_seconds:
            raise refused("inference_too_slow", f"one instance takes {seconds[1]:.1f} s")
        return seconds

    def run(self, name: str, tensors: Tensors) -> Tensors:
        """The outputs of a signature; raises PredictionFailed, RunnerFailed."""
        seconds = self._settings.hang_limit_seconds + GRACE_SECONDS
        return self._living().call("predict_savedmodel", {"signature": name}, tensors, timeout_seconds=seconds)[1]

    def _weigh(self, batch: int) -> None:
        """Raises PredictorTooLarge, or for a batch, which is never formed then, PredictionFailed."""
        resident = int(psutil.Process(self._living().pid).memory_info().rss)
        try:
            check_room(resident, self._room_bytes)
        except PredictorTooLarge as error:
            self._end()
            if batch == 1:
                raise
            raise PredictionFailed(error.message) from error
        self.memory_bytes = max(self.memory_bytes, resident)

    def _living(self) -> Runner:
        """The process that has loaded it, another one where the last died."""
        if self._runner is not None and self._runner.alive:
            return self._runner
        self._end()
        runner = self._runner = self._start()
        runner.give(ARCHIVE, self._archive)
        arguments = load_arguments(self._default, [loaded.signature for loaded in self._further])
        runner.call("load_savedmodel", arguments, {}, timeout_seconds=self._settings.preparation_seconds)
        return runner

    def _end(self) -> None:
        if self._runner is not None:
            self._runner.close()
            self._runner = None


@dataclass(frozen=True, slots=True)
class _Original:
    """A signature as the model's own answers are asked of it."""

    trial: Trial
    name: str

    def reference(self, tensors: Tensors) -> Tensors:
        return self.trial.run(self.name, tensors)
