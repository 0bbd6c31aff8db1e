"""Measuring accepted variants: the one that serves in full, and the others to be compared with it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from model_store.errors import SluiceError
from model_store.variant_policies import EXPORTED, VariantPolicy
from workers.errors import PredictionFailed, PredictorTooLarge, RunnerFailed
from workers.preparation import choice, proof
from workers.preparation.candidates import Candidate, SavedModelCandidate
from workers.preparation.measure import Measured
from workers.preparation.room import check_room
from workers.runner.process import Runner
from workers.settings import WorkerSettings

ALONE_BYTES = 32 * 1024**2

Chosen = tuple[Candidate, Measured]


class Ranking:
    """One preparation's; `start` gives it runners."""

    def __init__(
        self,
        start: Callable[[], Runner],
        known: proof.Reference,
        policy: VariantPolicy,
        settings: WorkerSettings,
        room_bytes: int,
    ) -> None:
        self._start = start
        self._known = known
        self._policy = policy
        self._settings = settings
        self._room_bytes = room_bytes

    def chosen(self, leading: Sequence[Candidate], beside: Sequence[Candidate]) -> Chosen:
        """The variant that serves, with its measurement: the first of `leading` that can be measured, unless one of
        `beside` proves faster. Fills in all figures.

        Raises what the last of `leading` does where none can be measured.
        """
        preferred = self._first(leading)
        for candidate in beside:
            with self._excused(candidate):
                self._compare(candidate, preferred[1])
        chosen = self._overtaken(preferred, beside) or preferred
        # Last of all: what larger batches than are worth running take of memory is no part of serving.
        for candidate in (*leading, *beside):
            self._fill(candidate, preferred[1])
        return chosen

    def _first(self, leading: Sequence[Candidate]) -> Chosen:
        found: Chosen | None = None
        for candidate in leading:
            own = candidate
            try:
                if found is None:
                    own = self._alone(candidate) if candidate is leading[0] else candidate
                    measured = proof.time(own, self._known, self._settings, self._room_bytes)
                    self._weigh(candidate, own)
                    found = candidate, measured
                else:
                    self._compare(candidate, found[1])
            except SluiceError as error:
                # With another variant left, a failure here only means that this one does not serve.
                candidate.figures.accepted, candidate.figures.reason = False, error.message
                if candidate is leading[-1] and found is None:
                    raise
        assert found is not None  # noqa: S101 - for the type checker: the last failure was raised
        return found

    def _overtaken(self, preferred: Chosen, beside: Sequence[Candidate]) -> Chosen | None:
        """A variant beside the preferred one that may serve and is clearly faster, with its measurement."""
        candidate, measured = preferred
        rival = choice.challenger(self._policy, candidate, beside, measured.max_batch)
        if rival is None:
            return None
        before = dict(rival.figures.latency_ms)
        with self._excused(rival):
            own = proof.time(rival, self._known, self._settings, self._room_bytes)
            rival.figures.latency_ms = before | rival.figures.latency_ms
            self._weigh(rival, rival)
            # Something else may have run meanwhile: that it is faster has to show again.
            if choice.beats(rival.figures, candidate.figures, measured.max_batch):
                return rival, own
        return None

    def _compare(self, candidate: Candidate, measured: Measured) -> None:
        """Measures a variant beside the preferred one where that serves: singly, and at its largest batch."""
        proof.time_beside(candidate, self._known, sorted({1, measured.max_batch}))
        self._weigh(candidate, candidate)

    def _weigh(self, candidate: Candidate, own: Candidate) -> None:
        """Notes what serving it takes; raises PredictorTooLarge where no worker could load it."""
        candidate.figures.memory_bytes = own.memory_bytes
        if candidate.name not in EXPORTED:
            check_room(own.memory_bytes, self._room_bytes)

    def _alone(self, preferred: Candidate) -> Candidate:
        """The variant as it will be served: TensorFlow's in a process without Keras and what converting left there.

        With small weights that is 36 of 700 MB, not worth another start of TensorFlow.
        """
        if not isinstance(preferred, SavedModelCandidate) or preferred.path.stat().st_size < ALONE_BYTES:
            return preferred
        own = SavedModelCandidate(self._start(), preferred.path, preferred.signature, self._settings)
        own.figures = preferred.figures
        own.figures.load_seconds = own.load()
        return own

    def _fill(self, candidate: Candidate, measured: Measured) -> None:
        """Measures a variant at the other sizes that people compare by, as far as it runs."""
        known = candidate.figures.latency_ms
        if not known:
            return
        missing = [size for size in proof.compared(self._known, measured, self._settings) if size not in known]
        with contextlib.suppress(PredictionFailed, RunnerFailed):
            proof.time_beside(candidate, self._known, missing)
        candidate.figures.latency_ms = dict(sorted((known | candidate.figures.latency_ms).items()))

    @contextlib.contextmanager
    def _excused(self, candidate: Candidate) -> Iterator[None]:
        """A failure of a variant that need not serve refuses that variant only."""
        try:
            yield
        except (PredictionFailed, RunnerFailed, PredictorTooLarge) as error:
            figures = candidate.figures
            figures.accepted, figures.reason = False, figures.reason or error.message
