"""The sweep: leases that ran out, jobs past their deadline or their time, preparations that are due.

Each page of rows is a transaction of its own, and a run has a bound: others want to write too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis

from model_store import imports, partial_uploads, traffic_figures
from model_store import sweep as artifact_sweep
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import SluiceError
from monitoring import metrics
from workers import idempotency, jobs, lane_counts
from workers.files import keeping
from workers.files.due import DueFiles
from workers.lanes import Keys, consumer_and_token
from workers.leaving_versions import LeavingVersions
from workers.pools import Pools
from workers.preparation import schedule
from workers.publisher import Publisher
from workers.retention import Kept, Retention
from workers.ringer import Weight, even
from workers.running_bounds import RunningBounds
from workers.settings import QueueSettings

log = logging.getLogger(__name__)

PAGES_A_RUN = 10
PREPARATIONS_A_RUN = 100
IMPORTS_A_RUN = 10
IMPORT_AGAIN_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What a dispatcher works with."""

    sessions: Sessions
    client: redis.Redis
    artifacts: Artifacts
    publisher: Publisher
    settings: QueueSettings
    max_batch: int
    weight: Weight = even
    running_bounds: Callable[[], RunningBounds] = dict
    pools: Pools | None = None


class Sweep:
    """What the dispatcher's process does for jobs that nobody else looks after."""

    def __init__(self, with_: Collaborators) -> None:
        self._with = with_
        self._keys = Keys(with_.settings.key_prefix)
        self._retention = Retention(with_.sessions, with_.artifacts, Kept.by(with_.settings))
        self._files = DueFiles(with_.settings.files_running)
        self._leaving = LeavingVersions(with_.sessions)
        self._paused_until = 0.0
        self._imports_sent: dict[str, float] = {}
        self._cleaning: threading.Thread | None = None

    def pause(self) -> None:
        """The database was away, so nobody could renew: give the holders of leases one more before taking jobs away."""
        self._paused_until = time.monotonic() + jobs.LEASE_SECONDS

    def run(self) -> None:
        """Put back or fail jobs whose lease ran out, expire those past their deadline, start preparations."""
        if time.monotonic() < self._paused_until:
            return
        back, failed = self._recover()
        expired = self._expire()
        self._end_orphans()
        if back or failed or expired:
            log.info("sweep: %d jobs put back, %d failed, %d expired", back, len(failed), len(expired))
        metrics.REDISPATCHED.inc(back)
        # Whatever ran them died as often as it may.
        metrics.DEAD_LETTERS.inc(len(failed))
        self._tell([*failed, *expired])
        self._leaving.end()
        with transaction(self._with.sessions, write=False) as session:
            due = schedule.due(session, PREPARATIONS_A_RUN)
            imported = imports.due(session, IMPORTS_A_RUN)
        for model, version in due:
            self._with.publisher.prepare(model, version)
        self._import(imported)
        self._files.send(self._with.sessions, self._with.publisher)

    def _import(self, due: list[str]) -> None:
        # One message for each now and then: where no background worker is, they would pile up.
        now = time.monotonic()
        self._imports_sent = {one: at for one, at in self._imports_sent.items() if now - at < IMPORT_AGAIN_SECONDS}
        for one in due:
            if one not in self._imports_sent:
                self._imports_sent[one] = now
                self._with.publisher.import_model(one)

    def purge(self) -> bool:
        """Forget jobs that were kept long enough; returns whether that was all of them."""
        done = self._retention.purge(PAGES_A_RUN)
        self._files.purge(self._with.sessions, self._with.artifacts)
        partial_uploads.purge(self._with.sessions, self._with.artifacts)
        with transaction(self._with.sessions) as session:
            lane_counts.forget_idle(session)
            imports.purge(session)
            traffic_figures.forget_figures(session)
        for _ in range(PAGES_A_RUN):
            with transaction(self._with.sessions) as session:
                keys = idempotency.purge(session)
            if keys < idempotency.PAGE_ROWS:
                return done
        return False

    def store(self) -> None:
        """Begin to delete what lies in the store and belongs to nothing, in a thread of its own.

        A bucket of many objects takes minutes to be looked through, and jobs wait for this one.
        """
        if self._cleaning is None or not self._cleaning.is_alive():
            self._cleaning = threading.Thread(target=self._clean_store, name="store-sweep", daemon=True)
            self._cleaning.start()

    def close(self) -> None:
        """Wait a moment for what was begun."""
        if self._cleaning is not None:
            self._cleaning.join(timeout=5)

    def _clean_store(self) -> None:
        try:
            self._delete_unowned()
        except SluiceError as error:
            log.info("the store is swept another time: %s", error)
        except Exception:  # the thread's edge: the next run finds what this one did not
            log.exception("sweeping the store failed")

    def _delete_unowned(self) -> None:
        artifact_sweep.sweep(self._with.sessions, self._with.artifacts)
        # Payloads of jobs that were never committed have no row to be purged with, nor have those of lost attempts.
        self._retention.sweep_store()
        with transaction(self._with.sessions, write=False) as session:
            keeping.sweep_files(session, self._with.artifacts)

    def _recover(self) -> tuple[int, list[str]]:
        with transaction(self._with.sessions, write=False) as session:
            overdue = jobs.overdue(session)
        if not overdue:
            return 0, []
        # Asked before: a Redis that does not answer must not hold up everybody who writes to the database.
        alive = {worker for worker in overdue if self._alive(worker)}
        with transaction(self._with.sessions) as session:
            return jobs.recover(session, alive)

    def _alive(self, worker: str) -> bool:
        try:
            consumer, token = consumer_and_token(worker)
            return bool(self._with.client.get(self._keys.beat(consumer)) == token.encode())
        except redis.RedisError:
            # Nobody can tell: count the attempt as if the worker had died, so that a bad job does not run for ever.
            return False

    def _expire(self) -> list[str]:
        expired: list[str] = []
        for _ in range(PAGES_A_RUN):
            with transaction(self._with.sessions) as session:
                page = jobs.expire(session)
            expired += page
            if len(page) < jobs.PAGE_ROWS:
                break
        return expired

    def _end_orphans(self) -> None:
        with transaction(self._with.sessions) as session:
            stored = jobs.end_orphans(session)
        for name in stored:
            self._with.artifacts.delete_payload(name)

    def _tell(self, ids: list[str]) -> None:
        """Tell those who wait; a message may be lost, since they look for themselves as well."""
        try:
            if ids:
                self._with.client.publish(self._keys.ends(), " ".join(ids))
        except redis.RedisError:
            log.info("the ends of %d jobs could not be told: Redis is away", len(ids))
