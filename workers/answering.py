"""Running groups of entries: synchronous predictions get an answer; jobs are run as workers/job_batches.py does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from model_store.errors import SluiceError
from model_store.signature import Tensors
from workers.batches import Loaded, Outcome, predict_all
from workers.entries import Entry, Group, settle
from workers.errors import ModelQuarantined, RunnerFailed, WorkerCrashed
from workers.hot_lanes import Version
from workers.job_batches import JobBatches
from workers.lanes import Answer
from workers.outbox import Outbox, Parcel, pushes
from workers.protocols.body import Body
from workers.protocols.dialects import GRAMMARS
from workers.running import Running

log = logging.getLogger(__name__)

INLINE_BODY_BYTES = 256 * 1024
INLINE_BYTES = 2 * 1024 * 1024

Asked = tuple[bytes, int, Body]
"""Where the answer goes, the prediction's number there, and its body."""


@dataclass(frozen=True, slots=True)
class Answering:
    """What running entries needs."""

    running: Running
    jobs: JobBatches
    outbox: Outbox
    consumer: str
    stopping: Callable[[], bool]

    def inline(self, group: Group, parcel: Parcel) -> bool:
        """Run a group in the loop if that is a matter of microseconds; returns False where it needs a thread.

        The answers are put into `parcel`, which is sent here once it is due; otherwise the next read takes it along.
        """
        if group.jobs:
            return False
        loaded = self.running.cache.peek(*group.version)
        if loaded is None or not loaded.inline(sum(entry.predictions for entry in group.bundles)):
            return False
        if takes_long_to_read(group):
            return False
        self.running.watchdog.inline(group.version)
        try:
            answers = self._answers(_asked(group.bundles), loaded, None)
        except Exception:  # the loop's edge: one version's unforeseen failure must not end everybody's session
            log.exception("a batch of %s failed unexpectedly; it runs again in a thread", group.version)
            return False
        self.running.cache.used(*group.version)
        parcel.add(group.bundles, answers)
        if parcel.due:
            self.outbox.send(parcel.take())
        return True

    def at_once(self, version: Version) -> int:
        """How many groups of a version may be under way in threads: two where the next is read while one runs."""
        loaded = self.running.cache.peek(*version)
        return 2 if loaded is not None and loaded.reads_ahead else 1

    def slowly(self, group: Group) -> None:
        """Run a group whose batches take long, in a thread."""
        commands: list[bytes] = []
        try:
            if group.bundles:
                self._bundles(group)
            if group.jobs:
                commands += self.jobs.run(group)
        finally:
            self.outbox.send([*commands, *settle(group.entries)])

    def singly(self, group: Group) -> None:
        """Run what a crash left behind one by one, each answered before the next: the bad one is among them."""
        for entry in group.bundles:
            for alone in _asked([entry]):
                self.outbox.send(self._once(group.version, alone))
            self.outbox.send(settle([entry]))
        for entry in group.jobs:
            self.slowly(Group(group.version, group.priority, jobs=[entry]))

    def give_up(self, entries: Sequence[Entry]) -> None:
        """Answer synchronous predictions whose second run died too; a job's own row decides about the job."""
        error = WorkerCrashed("whatever ran this prediction died twice; it was not tried again")
        self.outbox.send([*pushes(_refusals(_asked(entries), error)), *settle(entries)])

    def refuse_quarantined(self, group: Group) -> None:
        """Fail fast for a version that crashed too often, while others serve."""
        error = _quarantined(group.version)
        self.outbox.send([*pushes(_refusals(_asked(group.bundles), error)), *settle(group.bundles)])
        commands: list[bytes] = []
        try:
            if group.jobs:
                commands = self.jobs.refuse(group, error)
        finally:
            self.outbox.send([*commands, *settle(group.jobs)])

    def _bundles(self, group: Group) -> None:
        """Answers a batch at a time: whoever was answered asks again while the others' batches run."""
        left = _asked(group.bundles)
        try:
            with self.running.loaded(group.version) as loaded:
                while left:
                    self.outbox.send(
                        pushes(self._answers(left[: loaded.portion], loaded, self.running.watched(loaded)))
                    )
                    left = left[loaded.portion :]
        except RunnerFailed:
            # Once more, and singly: the one that the runner died of must not take its neighbours along again.
            self.outbox.send([command for alone in left for command in self._once(group.version, alone)])
        except SluiceError as error:
            self.outbox.send(pushes(_refusals(left, error)))

    def _once(self, version: Version, alone: Asked) -> list[bytes]:
        try:
            with self.running.loaded(version) as loaded:
                return pushes(self._answers([alone], loaded, self.running.watched(loaded)))
        except SluiceError as error:
            return pushes(_refusals([alone], error))

    def _answers(
        self, asked: Sequence[Asked], loaded: Loaded, run: Callable[[Tensors], Tensors] | None
    ) -> dict[bytes, list[Answer]]:
        outcomes = predict_all(loaded, [body for _, _, body in asked], run)
        answers: dict[bytes, list[Answer]] = {}
        for (reply_to, number, body), outcome in zip(asked, outcomes, strict=True):
            answers.setdefault(reply_to, []).append(_answer(number, body.dialect, outcome))
        return answers


def takes_long_to_read(group: Group) -> bool:
    """Whether the bodies are so large that to parse them in the loop would hold up other versions for milliseconds."""
    sizes = [len(body.data) for entry in group.bundles if entry.bundle for _, body in entry.bundle.predictions]
    return max(sizes, default=0) > INLINE_BODY_BYTES or sum(sizes) > INLINE_BYTES


def _asked(entries: Sequence[Entry]) -> list[Asked]:
    """The entries' predictions, in order."""
    return [
        (entry.bundle.reply_to, number, body)
        for entry in entries
        if entry.bundle
        for number, body in entry.bundle.predictions
    ]


def _answer(number: int, dialect: int, outcome: Outcome) -> Answer:
    if isinstance(outcome, SluiceError):
        return Answer(number, outcome.status, GRAMMARS[dialect].format_error(outcome.message))
    return Answer(number, 200, outcome.data, outcome.head, outcome.instances)


def _refusals(asked: Sequence[Asked], error: SluiceError) -> dict[bytes, list[Answer]]:
    answers: dict[bytes, list[Answer]] = {}
    for reply_to, number, body in asked:
        answers.setdefault(reply_to, []).append(_answer(number, body.dialect, error))
    return answers


def _quarantined(version: Version) -> ModelQuarantined:
    return ModelQuarantined(
        f"version {version[1]} of {version[0]} crashed its worker three times in five minutes; it rests for five",
        retry_after_seconds=60,
    )
