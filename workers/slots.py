"""Slots: the places where a drain can run. Workers announce them; gateways choose among them.

A slot is `{worker}.{index}`, one for each prediction process. A version's slots follow from a rendezvous hash, so that
every gateway chooses the same few without talking to the others, and a version's predictor stays warm there
(Thaler and Ravishankar 1998, "Using name-based mappings to increase hit rates").
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import redis

from workers.lanes import LANE_MILLISECONDS, Keys

log = logging.getLogger(__name__)

ANNOUNCE_SECONDS = 1.0
SLOT_SECONDS = 3.0
# Redis may say that there are more: nobody knows who wrote it.
MOST_ANNOUNCED = 1000


def slots_of(worker: str, processes: int) -> list[str]:
    return [f"{worker}.{index}" for index in range(processes)]


def worker_of(slot: str) -> str:
    """The worker that announced a slot; its Celery queue is named after it."""
    return slot.rpartition(".")[0]


def queue_of(pool: str, worker: str) -> str:
    """The Celery queue of a worker's drains: a session must run where its slot is, or its predictors would be cold."""
    return f"drain.{pool}.{worker}"


@lru_cache(maxsize=4096)
def ranked(version: str, slots: tuple[str, ...]) -> tuple[str, ...]:
    """All slots in the version's order of preference; adding or losing a slot moves no other version."""
    return tuple(sorted(slots, key=lambda slot: hashlib.blake2b(f"{version}|{slot}".encode(), digest_size=8).digest()))


def announced(client: redis.Redis, keys: Keys, pool: str) -> tuple[str, ...]:
    """The slots whose workers are alive, a thousand at most, in a stable order."""
    seconds, microseconds = client.time()
    since = seconds + microseconds / 1e6 - SLOT_SECONDS
    found: Any = client.zrevrangebyscore(keys.slots(pool), "+inf", since, start=0, num=MOST_ANNOUNCED)
    return tuple(sorted(slot.decode(errors="replace") for slot in found))


class Announcer:
    """A thread of a worker's main process that says every second which slots it has."""

    def __init__(self, client: redis.Redis, keys: Keys, pool: str, slots: Sequence[str], budget_bytes: int = 0) -> None:
        self._client = client
        self._budget_bytes = budget_bytes
        self._keys = keys
        self._pool = pool
        self._slots = list(slots)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def announce(self) -> None:
        """Say once that the slots are there, in which pool, and what each may load; raises redis.RedisError."""
        key = self._keys.slots(self._pool)
        seconds, microseconds = self._client.time()
        now = seconds + microseconds / 1e6
        pipeline = self._client.pipeline(transaction=False)
        pipeline.zadd(key, dict.fromkeys(self._slots, now))
        pipeline.zremrangebyscore(key, 0, now - 60)
        pipeline.pexpire(key, 60_000)
        pipeline.zadd(self._keys.pools(), {self._pool: now})
        pipeline.zremrangebyscore(self._keys.pools(), 0, now - 60)
        pipeline.pexpire(self._keys.pools(), 60_000)
        for slot in self._slots:
            # What a preparation goes by: a version that no slot can load must not become AVAILABLE.
            pipeline.hset(self._keys.loaded(self._pool, slot), "budget", str(self._budget_bytes))
            pipeline.pexpire(self._keys.loaded(self._pool, slot), LANE_MILLISECONDS)
        pipeline.execute()

    def close(self) -> None:
        """Stop and take the slots back, so that gateways choose others at once."""
        self._stop.set()
        # A worker that is stopped before it ever reached Redis has announced nothing yet.
        if self._thread.is_alive():
            self._thread.join(timeout=3)
        try:
            self._client.zrem(self._keys.slots(self._pool), *self._slots)
        except redis.RedisError:
            log.info("slots could not be taken back; they expire by themselves")

    def _forget_loaded(self) -> None:
        """What an earlier process of this name had loaded is not in the memory of this one."""
        try:
            self._client.delete(*[self._keys.loaded(self._pool, slot) for slot in self._slots])
        except redis.RedisError:
            log.info("what an earlier worker of this name had loaded could not be taken back; its sessions will")

    def _run(self) -> None:
        self._forget_loaded()
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self.announce()
            except redis.RedisError as error:
                log.warning("slots could not be announced: %s", type(error).__name__)
            except Exception:  # the thread's edge: nobody would ring for this worker any more
                log.exception("slots could not be announced")
            self._stop.wait(max(0.0, ANNOUNCE_SECONDS - (time.monotonic() - started)))
