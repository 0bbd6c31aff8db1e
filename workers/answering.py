"""Running groups of entries: synchronous predictions get an answer; jobs are run as workers/job_batches.py does."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model_store.errors import SluiceError
from workers.batches import Loaded, Outcome, Run, predict_all
from workers.entries import Asked, Entry, Group, settle
from workers.errors import ModelQuarantined, RunnerFailed, WorkerCrashed
from workers.files_aside import ASIDE, SLOW_FILES, DecodingSlow, FilesLeft, files_left, without_files
from workers.hot_lanes import Version
from workers.job_batches import JobBatches
from workers.lanes import Answer, entry_ms
from workers.outbox import Outbox, Parcel, pushes
from workers.protocols.body import Body
from workers.protocols.contract import Contract
from workers.protocols.dialects import GRAMMARS
from workers.protocols.file_reading import FilesAside
from workers.redis_clock import RedisClock
from workers.running import Running

log = logging.getLogger(__name__)

INLINE_BODY_BYTES = 256 * 1024
INLINE_BYTES = 2 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answering:
    """What running entries needs."""

    running: Running
    jobs: JobBatches
    outbox: Outbox
    consumer: str
    stopping: Callable[[], bool]
    clock: RedisClock = field(default_factory=RedisClock)

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
            answers, _ = self._answers(_asked(group.bundles), loaded, None, without_files(loaded.contract, SLOW_FILES))
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

    def slowly(self, group: Group, aside: Callable[[FilesLeft], None]) -> None:
        """Run a group whose batches take long, in a thread.

        What `aside` is given, `files` has to answer: it stays unsettled until then.
        """
        commands: list[bytes] = []
        left: FilesLeft | None = None
        try:
            if group.bundles:
                left = self._bundles(group)
            if left is not None:
                aside(left)
            if group.jobs:
                commands = self.jobs.run(group)
        finally:
            self.outbox.send([*commands, *settle(group.entries if left is None else left.others(group.entries))])

    def files(self, left: FilesLeft) -> bool:
        """Answer some of the predictions whose files were left for later; returns whether there are more."""
        began, taken = time.monotonic(), left.take()
        if began < left.given_up:
            self.outbox.send(self._with_files(left.version, taken))
            left.took(time.monotonic() - began)
        else:
            # Whoever is left has been told that it took too long.
            left.asked = []
        if not left.asked:
            self.outbox.send(settle(left.entries))
        return bool(left.asked)

    def all_files(self, left: FilesLeft) -> None:
        """Answer all of them at once."""
        while self.files(left):
            pass

    def singly(self, group: Group) -> None:
        """Run what a crash left behind one by one, each answered before the next: the bad one is among them."""
        for entry in group.bundles:
            for alone in _asked([entry]):
                self.outbox.send(self._once(group.version, alone))
            self.outbox.send(settle([entry]))
        for entry in group.jobs:
            self.slowly(Group(group.version, group.priority, jobs=[entry]), self.all_files)

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

    def _bundles(self, group: Group) -> FilesLeft | None:
        """Answers a batch at a time: whoever was answered asks again while the others' batches run. Returns the files.

        One lane's files come after another's.
        """
        left, aside = _asked_in_turn(group.bundles), list[Asked]()
        given_up = time.monotonic() + max((entry.limit_seconds for entry in group.bundles), default=0.0)
        try:
            with self.running.loaded(group.version) as loaded:
                run, numbers_alone = self.running.watched(loaded), without_files(loaded.contract, ASIDE)
                while left:
                    answers, files = self._answers(left[: loaded.portion], loaded, run, numbers_alone)
                    self.outbox.send(pushes(answers))
                    aside += files
                    left = left[loaded.portion :]
        except RunnerFailed:
            # Once more, and singly: the one that the runner died of must not take its neighbours along again.
            self.outbox.send([command for alone in left for command in self._once(group.version, alone)])
        except SluiceError as error:
            self.outbox.send(pushes(_refusals(left + aside, error)))
            return None
        return files_left(group.version, aside, group.bundles, given_up) if aside else None

    def _with_files(self, version: Version, asked: Sequence[Asked]) -> list[bytes]:
        """Packed commands that answer these, in one inference if they share one."""
        try:
            with self.running.loaded(version) as loaded:
                return pushes(self._answers(asked, loaded, self.running.watched(loaded))[0])
        except RunnerFailed:
            return [command for alone in asked for command in self._once(version, alone)]
        except SluiceError as error:
            return pushes(_refusals(asked, error))

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
        began = time.monotonic()
        outcomes = predict_all(loaded, [body for _, _, body, _ in asked], run, contract)
        served = [one[3] for one, outcome in zip(asked, outcomes, strict=True) if isinstance(outcome, Body)]
        loaded.tallies.waited((loaded.model, loaded.version), len(served), self.clock.waited_ns(served, began))
        answers: dict[bytes, list[Answer]] = {}
        aside: list[Asked] = []
        for one, outcome in zip(asked, outcomes, strict=True):
            reply_to, number, body, _ = one
            if isinstance(outcome, FilesAside):
                aside.append(one)
            else:
                answers.setdefault(reply_to, []).append(_answer(number, body.dialect, outcome))
        return answers, aside


def takes_long_to_read(group: Group) -> bool:
    """Whether the bodies are so large that to parse them in the loop would hold up other versions for milliseconds."""
    sizes = [len(body.data) for entry in group.bundles if entry.bundle for _, body in entry.bundle.predictions]
    return max(sizes, default=0) > INLINE_BODY_BYTES or sum(sizes) > INLINE_BYTES


def _asked(entries: Sequence[Entry]) -> list[Asked]:
    """The entries' predictions, in order."""
    return [
        (entry.bundle.reply_to, number, body, laid_ms)
        for entry in entries
        if entry.bundle
        for laid_ms in (entry_ms(entry.id),)
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
    for reply_to, number, body, _ in asked:
        answers.setdefault(reply_to, []).append(_answer(number, body.dialect, error))
    return answers


def _quarantined(version: Version) -> ModelQuarantined:
    return ModelQuarantined(
        f"version {version[1]} of {version[0]} crashed its worker three times in five minutes; it rests for five",
        retry_after_seconds=60,
    )
