"""Finished answers on their way to Redis: kept until their deadline while Redis is away."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

import redis

from workers.redis_link import Wire

KEEP_SECONDS = 120.0
MOST_PARCELS = 10_000
TRIES = 2


class Outbox:
    """Sends commands, or keeps them in order until Redis is back; safe for several threads."""

    def __init__(self, client: redis.Redis) -> None:
        self._client = client
        self._local = threading.local()
        self._lock = threading.Lock()
        self._wires: list[Wire] = []
        self._kept: deque[tuple[float, list[bytes]]] = deque(maxlen=MOST_PARCELS)

    def send(self, commands: Sequence[bytes]) -> bool:
        """Send now; returns False where Redis is away and the commands are kept instead."""
        if not commands:
            return True
        for _ in range(TRIES):
            try:
                self._wire().execute(commands)
                return True
            except redis.RedisError:
                # The first failure may only say that this thread's connection is older than Redis.
                continue
        with self._lock:
            self._kept.append((time.monotonic() + KEEP_SECONDS, list(commands)))
        return False

    @property
    def waiting(self) -> bool:
        """Whether anything is kept."""
        return bool(self._kept)

    def flush(self) -> None:
        """Send what was kept and is still wanted; raises redis.RedisError where Redis is still away."""
        while True:
            with self._lock:
                if not self._kept:
                    return
                until, commands = self._kept[0]
            if until > time.monotonic():
                self._wire().execute(commands)
            with self._lock:
                self._kept.popleft()

    def close(self) -> None:
        with self._lock:
            for wire in self._wires:
                wire.close()

    def _wire(self) -> Wire:
        # One connection per thread: replies of two pipelines must not mix.
        wire: Wire | None = getattr(self._local, "wire", None)
        if wire is None:
            wire = self._local.wire = Wire(self._client)
            with self._lock:
                self._wires.append(wire)
        return wire
