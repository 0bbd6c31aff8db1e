"""Running groups of entries: synchronous predictions get an answer; jobs are run as workers/job_batches.py does."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from model_store.errors import SluiceError
from model_store.signature import Tensor
from workers.batches import Loaded, Outcome, Run, predict_all
from workers.entries import Entry, Group, settle
from workers.errors import ModelQuarantined, RunnerFailed, WorkerCrashed
from workers.hot_lanes import Version
from workers.job_batches import JobBatches
from workers.lanes import Answer
from workers.outbox import Outbox, Parcel, pushes
from workers.protocols.body import Body
from workers.protocols.contract import Contract
from workers.protocols.dialects import GRAMMARS
from workers.protocols.file_reading import FileReader, FilesAside, Given
from workers.running import Running

log = logging.getLogger(__name__)

INLINE_BODY_BYTES = 256 * 1024
INLINE_BYTES = 2 * 1024 * 1024
# Requests with files that are read before their inference, where reading the ones before took no longer than this.
MOST_FILES = 16
FILES_SECONDS = 0.1

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
            answers, _ = self._answers(_asked(group.bundles), loaded, None, _without_files(loaded.contract, SLOW_FILES))
        except DecodingSlow:
            return False
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
        """Answers a batch at a time: whoever was answered asks again while the others' batches run.

        Files come last, one lane's after another's: to decode one may take as long as hundreds of inferences.
        """
        left, aside = _asked_in_turn(group.bundles), list[Asked]()
        given_up = time.monotonic() + max((entry.limit_seconds for entry in group.bundles), default=0.0)
        try:
            with self.running.loaded(group.version) as loaded:
                run, numbers_alone = self.running.watched(loaded), _without_files(loaded.contract, ASIDE)
                while left:
                    answers, files = self._answers(left[: loaded.portion], loaded, run, numbers_alone)
                    self.outbox.send(pushes(answers))
                    aside += files
                    left = left[loaded.portion :]
                size = 1
                # Whoever is left then has been told that it took too long.
                while aside and (began := time.monotonic()) < given_up:
                    self.outbox.send(pushes(self._answers(aside[:size], loaded, run)[0]))
                    aside = aside[size:]
                    # Small ones share inferences as numbers do; nobody waits for many large ones of others.
                    size = min(2 * size, MOST_FILES) if time.monotonic() - began < FILES_SECONDS else 1
        except RunnerFailed:
            # Once more, and singly: the one that the runner died of must not take its neighbours along again.
            self.outbox.send([command for alone in left + aside for command in self._once(group.version, alone)])
        except SluiceError as error:
            self.outbox.send(pushes(_refusals(left + aside, error)))

    def _once(self, version: Version, alone: Asked) -> list[bytes]:
        try:
            with self.running.loaded(version) as loaded:
                return pushes(self._answers([alone], loaded, self.running.watched(loaded))[0])
        except SluiceError as error:
            return pushes(_refusals([alone], error))

    def _answers(
        self,
        asked: Sequence[Asked],
        loaded: Loaded,
        run: Run | None,
        contract: Contract | None = None,
    ) -> tuple[dict[bytes, list[Answer]], list[Asked]]:
        """The answers, and what was set aside since it has files."""
        outcomes = predict_all(loaded, [body for _, _, body in asked], run, contract)
        answers: dict[bytes, list[Answer]] = {}
        aside: list[Asked] = []
        for one, outcome in zip(asked, outcomes, strict=True):
            reply_to, number, body = one
            if isinstance(outcome, FilesAside):
                aside.append(one)
            else:
                answers.setdefault(reply_to, []).append(_answer(number, body.dialect, outcome))
        return answers, aside


class DecodingSlow(Exception):
    """A request has files: to wait for a runner in the loop would hold up other versions."""


class SlowFiles:
    """Stands for a reader of files in the loop: what has any runs in a thread."""

    def read(self, _given: Given) -> Tensor:
        raise DecodingSlow


SLOW_FILES = SlowFiles()


class FilesLater:
    """Stands for a reader of files until everything else is answered."""

    def read(self, _given: Given) -> Tensor:
        raise FilesAside("the files of this request are read later")


ASIDE = FilesLater()


def _without_files(contract: Contract, files: FileReader) -> Contract | None:
    """The same terms with another reader; None for a version's own contract, which takes no files anyway."""
    return None if contract.input_specification is None else replace(contract, files=files)


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


def _asked_in_turn(entries: Sequence[Entry]) -> list[Asked]:
    """The same, the first of each lane before the second of any: who sends many does not keep the others waiting."""
    lanes: dict[bytes, list[Entry]] = {}
    for entry in entries:
        lanes.setdefault(entry.lane_key, []).append(entry)
    ranks = itertools.zip_longest(*[_asked(mine) for mine in lanes.values()])
    return [one for rank in ranks for one in rank if one is not None]


def _answer(number: int, dialect: int, outcome: Outcome) -> Answer:
    if isinstance(outcome, SluiceError):
        return Answer(number, outcome.status, GRAMMARS[dialect].format_error(outcome.message, outcome.status))
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
