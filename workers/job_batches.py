"""Batches of jobs: claimed, run and finished, each in one transaction for the whole batch."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from auth.standing import Standing
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable, SluiceError, StoreFull, StoreUnavailable
from model_store.signature import Tensors
from monitoring import metrics
from workers import jobs
from workers.attempts import TRIED_AGAIN
from workers.batches import Loaded, Outcome, Run, predict_all
from workers.entries import Group
from workers.errors import DecodingAway, DecodingUnavailable
from workers.files.row_batches import answer_chunk
from workers.heart import Heart
from workers.hot_lanes import Version
from workers.lanes import Keys
from workers.protocols.body import Body, Dialect, dialect_named, restored, stored
from workers.redis_link import pack
from workers.running import Running
from workers.settings import WorkerSettings
from workers.tallies import Tallies

DATABASE_PAUSE_SECONDS = 0.5
# For a store that is away: longer than a call that nobody answers keeps a slot from what needs no store.
STORE_PAUSE_SECONDS = 5.0
DATABASE_WAIT_SECONDS = 60.0
# Jobs whose tensors are much larger than their bodies: several at once would be more than a worker has room for.
ALONE = frozenset({Dialect.ROWS.label, Dialect.EXPLAIN.label})

T = TypeVar("T")


class JobsTaken(Exception):
    """None of the jobs that run is still this session's: whatever else would come of them is dropped."""


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
    tallies: Tallies = field(default_factory=Tallies)

    def run(self, group: Group) -> list[bytes]:
        """Claim, run and finish a group's jobs; returns packed commands that tell who waits for them."""
        claimed, commands = self._claim(group)
        numbers = [job.number for job in claimed]
        self.heart.running(numbers)
        try:
            if self.stopping():
                self._put_back(numbers)
                return commands
            for part in self._parts(group.version, claimed):
                commands += self._finish(group.version, part, self._run_jobs(group.version, part))
            return commands
        finally:
            self.heart.finished(numbers)

    def refuse(self, group: Group, error: SluiceError) -> list[bytes]:
        """Claim a group's jobs and let them fail without running; returns as `run`."""
        claimed, commands = self._claim(group)
        return commands + self._finish(group.version, claimed, [_ending(job, error) for job in claimed])

    def _claim(self, group: Group) -> tuple[list[jobs.Claimed], list[bytes]]:
        numbers = [entry.job for entry in group.jobs if entry.job is not None]
        ended: list[str] = []

        def claim() -> list[jobs.Claimed]:
            ended.clear()
            with transaction(self.sessions) as session:
                return jobs.claim(session, numbers, group.version, self.heart.holder, self.standing, ended)

        return self._persistently(claim), self._told(ended)

    def _parts(self, version: Version, claimed: Sequence[jobs.Claimed]) -> Iterator[list[jobs.Claimed]]:
        """What runs together, one after the other: short jobs at their first attempt do.

        After a crash a job runs alone: the one that kills its worker must not take others with it again. So does one of
        several inferences, which can be stopped between two of them once it is canceled, a chunk of a file, and an
        explanation: the copies of a hundred of them together would be more than a worker has room for.
        """
        if self.running.cache.peek(*version) is None and claimed:
            # The first loads the version, which says how long an inference may be.
            yield [claimed[0]]
            claimed = claimed[1:]
        loaded = self.running.cache.peek(*version)
        most = math.inf if loaded is None else loaded.max_batch

        def is_short(job: jobs.Claimed) -> bool:
            return job.attempt == 1 and job.instances <= most and job.dialect not in ALONE

        short = [job for job in claimed if is_short(job)]
        if short:
            yield short
        for job in claimed:
            if not is_short(job):
                yield [job]

    def _run_jobs(self, version: Version, claimed: Sequence[jobs.Claimed]) -> list[jobs.Ending]:
        try:
            with self.running.loaded(version) as loaded:
                bodies = [self._body(job) for job in claimed]
                waits = [_waited_ns(job) for job in claimed]
                try:
                    outcomes = self._predicted(loaded, claimed, bodies)
                    origin = loaded.origin.to_json()
                except JobsTaken:
                    return []
        except DatabaseUnavailable:
            # It is asked what to load: that it was away then is no fault of the jobs, and no end of them.
            self._put_back([job.number for job in claimed])
            return []
        except SluiceError as error:
            if len(claimed) > 1:
                # Whose fault it was, a run of its own tells: it may be one job's input that is gone from the store.
                return [ending for job in claimed for ending in self._run_jobs(version, [job])]
            if isinstance(error, StoreUnavailable | DecodingAway):
                return self._waits(claimed[0])
            return self._retried(claimed[0], error)
        served = [wait for wait, outcome in zip(waits, outcomes, strict=True) if isinstance(outcome, Body)]
        self.tallies.waited(version, len(served), sum(served))
        pairs = zip(claimed, outcomes, strict=True)
        return [ending for job, outcome in pairs for ending in self._kept(job, outcome, origin)]

    def _predicted(self, loaded: Loaded, claimed: Sequence[jobs.Claimed], bodies: Sequence[Body]) -> list[Outcome]:
        run = self._while_held(loaded, claimed)
        if bodies[0].dialect == Dialect.ROWS:
            return [answer_chunk(loaded, self.artifacts, body.data, run) for body in bodies]
        return predict_all(loaded, bodies, run)

    def _body(self, job: jobs.Claimed) -> Body:
        name = jobs.input_name(job.id)
        data = self.artifacts.unsealed(name, job.input) if job.input is not None else self.artifacts.get_payload(name)
        return restored(data, dialect_named(job.dialect))

    def _while_held(self, loaded: Loaded, claimed: Sequence[jobs.Claimed]) -> Run:
        """An inference that raises JobsTaken where all of these jobs were canceled, or given to others, meanwhile."""
        run, numbers = self.running.watched(loaded), [job.number for job in claimed]
        long = claimed[0] if len(claimed) == 1 and claimed[0].instances > loaded.max_batch else None
        done = 0

        def run_next(tensors: Tensors, of: Loaded | None = None, /) -> Tensors:
            nonlocal done
            if not self.heart.holds(numbers):
                raise JobsTaken
            if long is not None:
                self.heart.progress(long.number, min(done, long.instances))
            done += (of or loaded).max_batch
            return run(tensors, of)

        return run_next

    def _retried(self, job: jobs.Claimed, error: SluiceError) -> list[jobs.Ending]:
        if error.code not in TRIED_AGAIN or job.attempt >= job.max_attempts:
            return [_ending(job, error)]
        with contextlib.suppress(DatabaseUnavailable), transaction(self.sessions) as session:
            jobs.retry(session, job)
        return []

    def _waits(self, job: jobs.Claimed) -> list[jobs.Ending]:
        """The store is away, or what decodes files, which no attempt of a job's is used up on."""
        self._put_back([job.number], STORE_PAUSE_SECONDS)
        return []

    def _kept(self, job: jobs.Claimed, outcome: Outcome, origin: str) -> list[jobs.Ending]:
        if isinstance(outcome, DecodingAway):
            return self._waits(job)
        if isinstance(outcome, DecodingUnavailable):
            return self._retried(job, outcome)
        if isinstance(outcome, SluiceError):
            return [_ending(job, outcome)]
        result, name = stored(outcome), jobs.result_name(job.id, job.fence)
        proven = functools.partial(
            jobs.Ending,
            job.number,
            job.fence,
            # Of the bytes that the caller gets, without what the row needs to restore them.
            output_digest=hashlib.sha256(outcome.data).digest(),
            result_bytes=len(outcome.data),
            ran_on=origin,
        )
        if len(result) <= self.settings.inline_bytes:
            return [proven(result=self.artifacts.sealed(name, result))]
        try:
            self.artifacts.put_payload(name, result)
        except StoreFull as error:
            # Its own trouble: the others of its batch are finished.
            return self._retried(job, error)
        except StoreUnavailable:
            return self._waits(job)
        return [proven(result_stored=True)]

    def _finish(self, version: Version, claimed: Sequence[jobs.Claimed], endings: Sequence[jobs.Ending]) -> list[bytes]:
        if not endings:
            return []

        def finish() -> list[int]:
            with transaction(self.sessions) as session:
                return jobs.finish(session, endings)

        written = self._persistently(finish)
        self._drop_payloads(claimed, endings, written)
        self._count(version, claimed, endings, written)
        metrics.FENCED_WRITES.inc(len(endings) - len(written))
        failed = sum(ending.error_code is not None for ending in endings)
        for outcome, count in (("failed", failed), ("succeeded", len(endings) - failed)):
            metrics.JOBS.labels(metrics.bounded(version[0]), outcome).inc(count)
        metrics.DEAD_LETTERS.inc(len({ending.number for ending in endings if ending.dead}.intersection(written)))
        ids = {job.number: job.id for job in claimed}
        return self._told([ids[number] for number in written])

    def _count(
        self, version: Version, claimed: Sequence[jobs.Claimed], endings: Sequence[jobs.Ending], written: Sequence[int]
    ) -> None:
        taken, kept = {job.number: job for job in claimed}, set(written)
        for ending in endings:
            if ending.number in kept:
                nanoseconds = _waited_ns(taken[ending.number])
                self.tallies.ended(version, succeeded=ending.error_code is None, nanoseconds=nanoseconds)

    def _drop_payloads(
        self, claimed: Sequence[jobs.Claimed], endings: Sequence[jobs.Ending], written: Sequence[int]
    ) -> None:
        """Delete results that nobody will read: their jobs were canceled, deleted or taken over meanwhile."""
        ids, kept = {job.number: job.id for job in claimed}, set(written)
        for ending in endings:
            if ending.result_stored and ending.number not in kept:
                self.artifacts.delete_payload(jobs.result_name(ids[ending.number], ending.fence))

    def _told(self, ids: Sequence[str]) -> list[bytes]:
        return [pack("PUBLISH", Keys(self.settings.key_prefix).ends(), " ".join(ids))] if ids else []

    def _put_back(self, numbers: list[int], pause_seconds: float = 0.0) -> None:
        with contextlib.suppress(DatabaseUnavailable), transaction(self.sessions) as session:
            jobs.put_back(session, numbers, self.heart.holder, pause_seconds)

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


def _waited_ns(job: jobs.Claimed) -> int:
    """From when the job was accepted until now."""
    return job.waited_ms * 1_000_000 + round((time.monotonic() - job.claimed_at) * 1e9)


def _ending(job: jobs.Claimed, error: SluiceError) -> jobs.Ending:
    return jobs.Ending(job.number, job.fence, error_code=error.code, error_message=error.message)
