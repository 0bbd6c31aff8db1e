"""Batches of jobs: claimed, run and finished, each in one transaction for the whole batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from auth.standing import Standing
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable, SluiceError, StoreFull
from monitoring import metrics
from workers import jobs
from workers.batches import Outcome, predict_all
from workers.entries import Group
from workers.errors import RunnerFailed
from workers.heart import Heart
from workers.hot_lanes import Version
from workers.lanes import Keys
from workers.protocols.body import Body, dialect_named, restored, stored
from workers.redis_link import pack
from workers.running import Running
from workers.settings import WorkerSettings

DATABASE_PAUSE_SECONDS = 0.5
DATABASE_WAIT_SECONDS = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobBatches:
    """What running jobs needs."""

    settings: WorkerSettings
    sessions: Sessions
    artifacts: Artifacts
    running: Running
    heart: Heart
    stopping: Callable[[], bool]
    standing: Standing = field(default_factory=Standing)

    def run(self, group: Group) -> list[bytes]:
        """Claim, run and finish a group's jobs; returns packed commands that tell who waits for them."""
        claimed = self._claim(group)
        numbers = [job.number for job in claimed]
        self.heart.running(numbers)
        try:
            if self.stopping():
                self._put_back(numbers)
                return []
            # After a crash a job runs alone: the one that kills its worker must not take others with it again.
            fresh = [job for job in claimed if job.attempt == 1]
            endings = self._run_jobs(group.version, fresh) if fresh else []
            for job in claimed:
                if job.attempt > 1:
                    endings += self._run_jobs(group.version, [job])
            return self._finish(group.version, claimed, endings)
        finally:
            self.heart.finished(numbers)

    def refuse(self, group: Group, error: SluiceError) -> list[bytes]:
        """Claim a group's jobs and let them fail without running; returns as `run`."""
        claimed = self._claim(group)
        return self._finish(group.version, claimed, [_ending(job, error) for job in claimed])

    def _claim(self, group: Group) -> list[jobs.Claimed]:
        numbers = [entry.job for entry in group.jobs if entry.job is not None]

        def claim() -> list[jobs.Claimed]:
            with transaction(self.sessions) as session:
                return jobs.claim(session, numbers, group.version, self.heart.holder, self.standing)

        return self._persistently(claim)

    def _run_jobs(self, version: Version, claimed: Sequence[jobs.Claimed]) -> list[jobs.Ending]:
        try:
            with self.running.loaded(version) as loaded:
                bodies = [self._body(job) for job in claimed]
                outcomes = predict_all(loaded, bodies, self.running.watched(loaded))
        except DatabaseUnavailable:
            # It is asked what to load: that it was away then is no fault of the jobs, and no end of them.
            self._put_back([job.number for job in claimed])
            return []
        except SluiceError as error:
            if len(claimed) > 1:
                # Whose fault it was, a run of its own tells: it may be one job's input that is gone from the store.
                return [ending for job in claimed for ending in self._run_jobs(version, [job])]
            return self._retried(claimed[0], error) if isinstance(error, RunnerFailed) else [_ending(claimed[0], error)]
        return [ending for job, outcome in zip(claimed, outcomes, strict=True) for ending in self._kept(job, outcome)]

    def _body(self, job: jobs.Claimed) -> Body:
        name = jobs.input_name(job.id)
        data = self.artifacts.unsealed(name, job.input) if job.input is not None else self.artifacts.get_payload(name)
        return restored(data, dialect_named(job.dialect))

    def _retried(self, job: jobs.Claimed, error: SluiceError) -> list[jobs.Ending]:
        if job.attempt >= jobs.MOST_ATTEMPTS:
            return [_ending(job, error)]
        with contextlib.suppress(DatabaseUnavailable), transaction(self.sessions) as session:
            jobs.retry(session, job)
        return []

    def _kept(self, job: jobs.Claimed, outcome: Outcome) -> list[jobs.Ending]:
        if isinstance(outcome, SluiceError):
            return [_ending(job, outcome)]
        result, name = stored(outcome), jobs.result_name(job.id, job.fence)
        if len(result) <= self.settings.inline_bytes:
            return [jobs.Ending(job.number, job.fence, result=self.artifacts.sealed(name, result))]
        try:
            self.artifacts.put_payload(name, result)
        except StoreFull as error:
            # Its own trouble: the others of its batch are finished.
            return self._retried(job, error)
        return [jobs.Ending(job.number, job.fence, result_stored=True)]

    def _finish(self, version: Version, claimed: Sequence[jobs.Claimed], endings: Sequence[jobs.Ending]) -> list[bytes]:
        if not endings:
            return []

        def finish() -> list[int]:
            with transaction(self.sessions) as session:
                return jobs.finish(session, endings)

        written = self._persistently(finish)
        metrics.FENCED_WRITES.inc(len(endings) - len(written))
        failed = sum(ending.error_code is not None for ending in endings)
        for outcome, count in (("failed", failed), ("succeeded", len(endings) - failed)):
            metrics.JOBS.labels(metrics.bounded(version[0]), outcome).inc(count)
        keys = Keys(self.settings.key_prefix)
        ids = {job.number: job.id for job in claimed}
        return [pack("PUBLISH", keys.ends(), " ".join(ids[number] for number in written))] if written else []

    def _put_back(self, numbers: list[int]) -> None:
        with contextlib.suppress(DatabaseUnavailable), transaction(self.sessions) as session:
            jobs.put_back(session, numbers, self.heart.holder)

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


def _ending(job: jobs.Claimed, error: SluiceError) -> jobs.Ending:
    return jobs.Ending(job.number, job.fence, error_code=error.code, error_message=error.message)
