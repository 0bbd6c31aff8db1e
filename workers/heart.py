"""The heartbeat of a session: a thread that keeps its key, its consumer's heartbeat and its jobs' leases alive."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection

import redis

from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable
from workers import jobs
from workers.bells import DRAIN_MILLISECONDS
from workers.lanes import Keys, consumer_of, holder_of
from workers.redis_link import Wire, pack

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
RENEW_SECONDS = 3.0
# While a job of several inferences runs: its renewal tells whether it was canceled, and carries how far it is. One
# UPDATE a second for each process that has one (0.2 ms on SQLite, 0.5 ms on PostgreSQL); a channel of its own would be
# told a little sooner, and could lose what the row keeps.
RENEW_LONG_SECONDS = 1.0


class Heart:
    """Beats once a second; `lost` is set once another session holds the slot's key."""

    def __init__(self, client: redis.Redis, keys: Keys, slot: tuple[str, str], token: str, sessions: Sessions) -> None:
        pool, name = slot
        consumer = consumer_of(pool, name)
        self.holder = holder_of(consumer, token)
        self._drain_key = keys.drain(pool, name)
        self._beat_key = keys.beat(consumer)
        self._token = token.encode()
        self._wire = Wire(client)
        self._sessions = sessions
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._running: set[int] = set()
        self._gone: set[int] = set()
        self._done: dict[int, int] = {}
        self._keeping = threading.Lock()
        self._keeps_key = True
        self._renewed_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="heart", daemon=True)
        self.lost = False

    def start(self) -> None:
        """Beat once now, so that nobody takes the consumer for dead, then keep beating; raises redis.RedisError."""
        self._beat()
        self._thread.start()

    def close(self) -> None:
        """Stop and take the heartbeat back; the slot's key is the session's own business."""
        self._stop.set()
        self._thread.join(timeout=3)
        try:
            self._wire.execute([pack("DEL", self._beat_key)])
        except redis.RedisError:
            log.info("the heartbeat could not be taken back; it expires by itself")
        self._wire.close()

    def keep_key(self, keep: bool) -> None:
        """Whether the slot's key is kept from now on: a beat must not take back what the session gives away."""
        with self._keeping:
            self._keeps_key = keep

    def running(self, numbers: list[int]) -> None:
        """Jobs whose leases are to be kept from now on."""
        with self._lock:
            self._running.update(numbers)

    def finished(self, numbers: list[int]) -> None:
        with self._lock:
            self._running.difference_update(numbers)
            self._gone.difference_update(numbers)
            for number in numbers:
                self._done.pop(number, None)

    def progress(self, number: int, done: int) -> None:
        """How many of a running job's instances are done; told with the next renewal, which comes within a second."""
        with self._lock:
            self._done[number] = done

    def holds(self, numbers: Collection[int]) -> bool:
        """Whether any of these running jobs is still this session's, as of the last renewal."""
        return not self._gone.issuperset(numbers)

    def _run(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            try:
                self._beat()
            except redis.RedisError:
                log.info("Redis is away; the heartbeat waits")
            except Exception:  # the thread's edge: a session without a heart is taken for dead while it works
                log.exception("a heartbeat failed unexpectedly")
            self._renew_leases()

    def _beat(self) -> None:
        self._wire.execute([pack("SET", self._beat_key, self._token, "PX", DRAIN_MILLISECONDS)])
        with self._keeping:
            if self._keeps_key:
                self._keep_key()

    def _keep_key(self) -> None:
        holder = self._wire.execute([pack("GET", self._drain_key)])[0]
        if holder == self._token:
            # Only while it holds our token: a session that was replaced must not keep its successor's key alive.
            self._wire.execute([pack("PEXPIRE", self._drain_key, DRAIN_MILLISECONDS)])
        elif holder is None:
            # Redis was wiped, or this process stood still for longer than the key lives: take it again if nobody did.
            taken = self._wire.execute([pack("SET", self._drain_key, self._token, "NX", "PX", DRAIN_MILLISECONDS)])
            self.lost = taken[0] is None
        else:
            self.lost = True

    def _renew_leases(self) -> None:
        with self._lock:
            numbers, done = list(self._running), dict(self._done)
        due_seconds = RENEW_LONG_SECONDS if done else RENEW_SECONDS
        if not numbers or time.monotonic() - self._renewed_at < due_seconds:
            return
        try:
            with transaction(self._sessions) as session:
                held = jobs.renew(session, numbers, self.holder, done)
            self._renewed_at = time.monotonic()
            with self._lock:
                # What ended meanwhile is not running any more.
                self._gone.update(self._running.intersection(numbers) - held)
        except DatabaseUnavailable:
            log.warning("leases could not be renewed: the database does not answer")
        except Exception:  # the thread's edge, as above
            log.exception("leases could not be renewed")
