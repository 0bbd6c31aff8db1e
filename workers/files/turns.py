"""The background worker's part of files: claim one that is due, read it, and say how that ended."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

import redis
from celery import Celery

from model_store.artifacts import Artifacts
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.errors import DatabaseUnavailable, SluiceError, StoreUnavailable
from workers import jobs, redis_link
from workers.attempts import TRIED_AGAIN
from workers.broker import READ_FILE
from workers.drafts import Claimed
from workers.files import claims
from workers.files.lease import FileLease
from workers.files.reading import FenceLost, Place, Reading, Withdrawn
from workers.lanes import Keys, holder_of
from workers.settings import BackgroundSettings
from workers.slots import announced

log = logging.getLogger(__name__)

# For each slot one chunk that runs and one that waits, and some for what ends out of turn.
CHUNKS_A_SLOT, MORE_CHUNKS, MOST_CHUNKS = 2, 2, 64
UNKNOWN_SLOTS = 2
STORE_PAUSE_SECONDS = 5.0


def register_read_file(app: Celery, settings: BackgroundSettings, stopping: Callable[[], bool]) -> None:
    """Make `app` one that reads files."""
    # Each file that is read has a thread, and one that keeps its lease.
    sessions = sessions_of(connect(settings, pool_size=settings.background_threads))
    turns = Turns(settings, sessions, Artifacts.of(settings), redis_link.connect(settings), stopping)

    @app.task(name=READ_FILE)
    def read_file(number: int) -> None:
        turns.read(number)


@dataclass(frozen=True, slots=True)
class Held:
    """A file that this worker claimed, under the name of this one turn."""

    claimed: Claimed
    worker: str


class Turns:
    """Reads files for one process, half as many at a time as it has threads: webhooks need some as well."""

    def __init__(
        self,
        settings: BackgroundSettings,
        sessions: Sessions,
        artifacts: Artifacts,
        client: redis.Redis,
        stopping: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._place = Place(settings, sessions, artifacts)
        self._sessions = sessions
        self._client = client
        self._keys = Keys(settings.key_prefix)
        self._stopping = stopping
        self._free = threading.BoundedSemaphore(settings.background_threads // 2)

    def read(self, number: int) -> None:
        """Read the file of a job, if it is due and there is room; where there is not, the message is sent again."""
        if not self._free.acquire(blocking=False):
            return
        try:
            # The second time, where a chunk was not allowed to run and yet the file may be.
            for withdrawn in (False, True):
                held = self._claim(number)
                if held is None or not self._read(held, withdrawn=withdrawn):
                    return
        except DatabaseUnavailable:
            log.warning("a file waits for the database; it is read on when its lease has run out")
        finally:
            self._free.release()

    def _claim(self, number: int) -> Held | None:
        worker = holder_of(f"background:{self._settings.worker_name}", secrets.token_hex(8))
        ended: list[str] = []
        with transaction(self._sessions) as session:
            claimed = claims.claim(session, number, worker, self._settings.files_running, ended)
        self._tell(ended)
        return None if claimed is None else Held(claimed, worker)

    def _read(self, held: Held, *, withdrawn: bool) -> bool:
        """Read on; returns whether it is to be claimed again at once."""
        try:
            if not self._read_on(held, withdrawn=withdrawn):
                self._give_back(held)
        except FenceLost:
            log.info("a file is not this worker's any more")
        except Withdrawn:
            self._give_back(held)
            return True
        except DatabaseUnavailable:
            raise
        except StoreUnavailable:
            log.warning("a file waits for the store")
            self._give_back(held, STORE_PAUSE_SECONDS)
        except SluiceError as error:
            self._fail(held, error)
        except Exception:  # the task's edge: the file would be claimed again and again until its attempts are used up
            log.exception("reading a file failed unexpectedly")
            self._fail(held, SluiceError("the file could not be read"))
        return False

    def _read_on(self, held: Held, *, withdrawn: bool) -> bool:
        with FileLease(self._sessions, held.claimed.number, held.worker) as lease:
            with transaction(self._sessions, write=False) as session:
                under = claims.under(session, held.claimed)
            reading = Reading(self._place, under, self._ahead(under.served.max_parallelism), lease.lost)
            whole = reading.run(self._stopping, withdrawn=withdrawn)
        if whole:
            self._tell([held.claimed.id])
        return whole

    def _fail(self, held: Held, error: SluiceError) -> None:
        claimed = held.claimed
        with transaction(self._sessions) as session:
            if error.code in TRIED_AGAIN and jobs.retry(session, claimed):
                return
            ending = jobs.Ending(claimed.number, claimed.fence, error_code=error.code, error_message=error.message)
            jobs.finish(session, [ending])
        self._tell([claimed.id])

    def _give_back(self, held: Held, pause_seconds: float = 0.0) -> None:
        with transaction(self._sessions) as session:
            jobs.put_back(session, [held.claimed.number], held.worker, pause_seconds)

    def _ahead(self, max_parallelism: int) -> int:
        try:
            slots = len(announced(self._client, self._keys, self._settings.pool)) or UNKNOWN_SLOTS
        except redis.RedisError:
            slots = UNKNOWN_SLOTS
        return min(MOST_CHUNKS, CHUNKS_A_SLOT * max(1, min(slots, max_parallelism)) + MORE_CHUNKS)

    def _tell(self, ids: list[str]) -> None:
        try:
            if ids:
                self._client.publish(self._keys.ends(), " ".join(ids))
        except redis.RedisError:
            log.info("the end of a file could not be told: Redis is away")
