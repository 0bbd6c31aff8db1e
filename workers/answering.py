"""Running groups of entries: synchronous predictions get an answer, jobs get a claim, a run and a written result."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable, SluiceError, StoreFull
from model_store.signature import Tensors
from monitoring import metrics
from workers import jobs
from workers.batches import Loaded, Outcome, predict_all
from workers.entries import Entry, Group, settle
from workers.errors import ModelQuarantined, RunnerFailed, WorkerCrashed
from workers.heart import Heart
from workers.hot_lanes import Version
from workers.lanes import REPLY_MILLISECONDS, Answer, Keys, pack_answers
from workers.outbox import Outbox
from workers.predictor_cache import PredictorCache
from workers.protocols import tensorflow_serving as dialect
from workers.redis_link import pack
from workers.settings import WorkerSettings
from workers.watchdog import Watchdog

log = logging.getLogger(__name__)

DATABASE_PAUSE_SECONDS = 0.5
DATABASE_WAIT_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answering:
    """What running entries needs."""

    settings: WorkerSettings
    sessions: Sessions
    artifacts: Artifacts
    cache: PredictorCache[Loaded]
    outbox: Outbox
    heart: Heart
    watchdog: Watchdog
    consumer: str
    stopping: Callable[[], bool]

    def inline(self, group: Group) -> bool:
        """Run a group in the loop if that is a matter of microseconds; returns False where it needs a thread."""
        if group.jobs:
            return False
        loaded = self.cache.peek(*group.version)
        if loaded is None or not loaded.inline:
            return False
        self.watchdog.inline(group.version)
        try:
            answers = self._answers(group.bundles, loaded, None)
        except Exception:  # the loop's edge: one version's unforeseen failure must not end everybody's session
            log.exception("a batch of %s failed unexpectedly; it runs again in a thread", group.version)
            return False
        self.outbox.send([*answers, *settle(group.bundles)])
        return True

    def slowly(self, group: Group) -> None:
        """Run a group whose batches take long, in a thread."""
        commands: list[bytes] = []
        try:
            if group.bundles:
                commands += self._bundles(group)
            if group.jobs:
                commands += self._jobs(group)
        finally:
            self.outbox.send([*commands, *settle(group.entries)])

    def singly(self, group: Group) -> None:
        """Run what a crash left behind one by one, each answered before the next: the bad one is among them."""
        for entry in group.bundles:
            for alone in _each_alone([entry]):
                self.outbox.send(self._once(group.version, alone))
            self.outbox.send(settle([entry]))
        for entry in group.jobs:
            self.slowly(Group(group.version, group.priority, jobs=[entry]))

    def give_up(self, entries: Sequence[Entry]) -> None:
        """Answer synchronous predictions whose second run died too; a job's own row decides about the job."""
        error = WorkerCrashed("whatever ran this prediction died twice; it was not tried again")
        self.outbox.send([*_pack(_refusals(entries, error)), *settle(entries)])

    def refuse_quarantined(self, group: Group) -> None:
        """Fail fast for a version that crashed too often, while others serve."""
        error = _quarantined(group.version)
        self.outbox.send([*_pack(_refusals(group.bundles, error)), *settle(group.bundles)])
        commands: list[bytes] = []
        try:
            if group.jobs:
                claimed = self._claim([entry.job_id or "" for entry in group.jobs])
                commands = self._finish(claimed, [_ending(job, error) for job in claimed])
        finally:
            self.outbox.send([*commands, *settle(group.jobs)])

    def _bundles(self, group: Group) -> list[bytes]:
        try:
            with self._loaded(group.version) as loaded:
                return self._answers(group.bundles, loaded, self._watched(loaded))
        except RunnerFailed:
            # Once more, and singly: the one that the runner died of must not take its neighbours along again.
            return [command for alone in _each_alone(group.bundles) for command in self._once(group.version, alone)]
        except SluiceError as error:
            return _pack(_refusals(group.bundles, error))

    def _once(self, version: Version, alone: Entry) -> list[bytes]:
        try:
            with self._loaded(version) as loaded:
                return self._answers([alone], loaded, self._watched(loaded))
        except SluiceError as error:
            return _pack(_refusals([alone], error))

    def _answers(
        self, entries: Sequence[Entry], loaded: Loaded, run: Callable[[Tensors], Tensors] | None
    ) -> list[bytes]:
        asked = [
            (entry.bundle.reply_to, number, body)
            for entry in entries
            if entry.bundle
            for number, body in entry.bundle.predictions
        ]
        outcomes = predict_all(loaded, [body for _, _, body in asked], run)
        answers: dict[bytes, list[Answer]] = {}
        for (reply_to, number, _), outcome in zip(asked, outcomes, strict=True):
            answers.setdefault(reply_to, []).append(_answer(number, outcome))
        return _pack(answers)

    def _jobs(self, group: Group) -> list[bytes]:
        claimed = self._claim([entry.job_id or "" for entry in group.jobs])
        ids = [job.id for job in claimed]
        self.heart.running(ids)
        try:
            if self.stopping():
                self._put_back(ids)
                return []
            # After a crash a job runs alone: the one that kills its worker must not take others with it again.
            fresh = [job for job in claimed if job.attempt == 1]
            endings = self._run_jobs(group.version, fresh) if fresh else []
            for job in claimed:
                if job.attempt > 1:
                    endings += self._run_jobs(group.version, [job])
            return self._finish(claimed, endings)
        finally:
            self.heart.finished(ids)

    def _claim(self, ids: list[str]) -> list[jobs.Claimed]:
        def claim() -> list[jobs.Claimed]:
            with transaction(self.sessions) as session:
                return jobs.claim(session, ids, self.consumer)

        return self._persistently(claim)

    def _run_jobs(self, version: Version, claimed: Sequence[jobs.Claimed]) -> list[jobs.Ending]:
        try:
            with self._loaded(version) as loaded:
                bodies = [
                    job.input if job.input is not None else self.artifacts.get_payload(jobs.input_name(job.id))
                    for job in claimed
                ]
                outcomes = predict_all(loaded, bodies, self._watched(loaded))
        except DatabaseUnavailable:
            # It is asked what to load: that it was away then is no fault of the jobs, and no end of them.
            self._put_back([job.id for job in claimed])
            return []
        except SluiceError as error:
            if len(claimed) > 1:
                # Whose fault it was, a run of its own tells: it may be one job's input that is gone from the store.
                return [ending for job in claimed for ending in self._run_jobs(version, [job])]
            return self._retried(claimed[0], error) if isinstance(error, RunnerFailed) else [_ending(claimed[0], error)]
        return [ending for job, outcome in zip(claimed, outcomes, strict=True) for ending in self._kept(job, outcome)]

    def _retried(self, job: jobs.Claimed, error: SluiceError) -> list[jobs.Ending]:
        if job.attempt >= jobs.MOST_ATTEMPTS:
            return [_ending(job, error)]
        with contextlib.suppress(DatabaseUnavailable), transaction(self.sessions) as session:
            jobs.retry(session, job)
        return []

    def _kept(self, job: jobs.Claimed, outcome: Outcome) -> list[jobs.Ending]:
        if isinstance(outcome, SluiceError):
            return [_ending(job, outcome)]
        if len(outcome) <= self.settings.inline_bytes:
            return [jobs.Ending(job.id, job.fence, result=outcome)]
        try:
            self.artifacts.put_payload(jobs.result_name(job.id, job.fence), outcome)
        except StoreFull as error:
            # Its own trouble: the others of its batch are finished.
            return self._retried(job, error)
        return [jobs.Ending(job.id, job.fence, result_stored=True)]

    def _finish(self, claimed: Sequence[jobs.Claimed], endings: Sequence[jobs.Ending]) -> list[bytes]:
        if not endings:
            return []

        def finish() -> list[str]:
            with transaction(self.sessions) as session:
                return jobs.finish(session, endings)

        written = self._persistently(finish)
        metrics.FENCED_WRITES.inc(len(endings) - len(written))
        for ending in endings:
            outcome = "failed" if ending.error_code else "succeeded"
            metrics.JOBS.labels(metrics.bounded(claimed[0].model), outcome).inc()
        keys = Keys(self.settings.key_prefix)
        return [pack("PUBLISH", keys.ends(), " ".join(written))] if written else []

    def _put_back(self, ids: list[str]) -> None:
        with contextlib.suppress(DatabaseUnavailable), transaction(self.sessions) as session:
            jobs.put_back(session, ids, self.consumer)

    def _persistently(self, action: Callable[[], T]) -> T:
        """Try until the database answers, at most a minute: by then the leases ran out and others take the jobs."""
        until = time.monotonic() + DATABASE_WAIT_SECONDS
        while True:
            try:
                return action()
            except DatabaseUnavailable:
                if time.monotonic() > until or self.stopping():
                    raise
                time.sleep(DATABASE_PAUSE_SECONDS)

    @contextlib.contextmanager
    def _loaded(self, version: Version) -> Iterator[Loaded]:
        """A version's predictor while it is used; what nobody foresaw becomes RunnerFailed: tried again, then told."""
        with contextlib.ExitStack() as stack:
            try:
                number = self.watchdog.begin(version)
                try:
                    loaded = stack.enter_context(self.cache.lease(*version))
                finally:
                    self.watchdog.end(number)
                yield loaded
            except SluiceError:
                raise
            except Exception as error:  # the batch's edge: callers would wait in vain, and a job would run for ever
                log.exception("a batch of %s failed unexpectedly", version)
                raise RunnerFailed("the prediction failed unexpectedly", code="internal") from error

    def _watched(self, loaded: Loaded) -> Callable[[Tensors], Tensors]:
        def run(tensors: Tensors) -> Tensors:
            number = self.watchdog.begin((loaded.model, loaded.version))
            try:
                return loaded.run(tensors)
            finally:
                self.watchdog.end(number)

        return run


def _each_alone(entries: Sequence[Entry]) -> list[Entry]:
    """The entries' predictions, each as an entry of its own."""
    return [
        replace(entry, bundle=replace(entry.bundle, predictions=(prediction,)))
        for entry in entries
        if entry.bundle
        for prediction in entry.bundle.predictions
    ]


def _answer(number: int, outcome: Outcome) -> Answer:
    if isinstance(outcome, SluiceError):
        return Answer(number, outcome.status, dialect.format_error(outcome.message))
    return Answer(number, 200, outcome)


def _refusals(entries: Sequence[Entry], error: SluiceError) -> dict[bytes, list[Answer]]:
    answers: dict[bytes, list[Answer]] = {}
    for entry in entries:
        if entry.bundle:
            mine = [_answer(number, error) for number, _ in entry.bundle.predictions]
            answers.setdefault(entry.bundle.reply_to, []).extend(mine)
    return answers


def _pack(answers: dict[bytes, list[Answer]]) -> list[bytes]:
    commands: list[bytes] = []
    for reply_to, mine in answers.items():
        commands += (pack("RPUSH", reply_to, pack_answers(mine)), pack("PEXPIRE", reply_to, REPLY_MILLISECONDS))
    return commands


def _ending(job: jobs.Claimed, error: SluiceError) -> jobs.Ending:
    return jobs.Ending(job.id, job.fence, error_code=error.code, error_message=error.message)


def _quarantined(version: Version) -> ModelQuarantined:
    return ModelQuarantined(
        f"version {version[1]} of {version[0]} crashed its worker three times in five minutes; it rests for five",
        retry_after_seconds=60,
    )
