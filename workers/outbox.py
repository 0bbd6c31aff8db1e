"""Finished answers on their way to Redis: kept until their deadline while Redis is away."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import redis

from workers.entries import Entry, settle
from workers.lanes import REPLY_MILLISECONDS, Answer, pack_answers
from workers.redis_link import Wire, pack

KEEP_SECONDS = 120.0
MOST_PARCELS = 10_000
TRIES = 2
# No answer is kept back for longer while batches of other versions run: a turn may have as many as 64 of them.
PARCEL_SECONDS = 0.002


class Parcel:
    """The answers of one turn of the loop and the entries that they settle: one command for each reply list.

    A batch of one instance takes less time than a round trip, and every push wakes a gateway.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._answers: dict[bytes, list[Answer]] = {}
        self._entries: list[Entry] = []
        self._begun = 0.0

    @property
    def due(self) -> bool:
        """Whether the first answer in it has waited long enough for others."""
        return bool(self._entries) and self._clock() - self._begun > PARCEL_SECONDS

    def add(self, entries: Sequence[Entry], answers: dict[bytes, list[Answer]]) -> None:
        """Put in the answers to some entries, by reply list."""
        if not self._entries:
            self._begun = self._clock()
        self._entries += entries
        for reply_to, mine in answers.items():
            self._answers.setdefault(reply_to, []).extend(mine)

    def take(self) -> list[bytes]:
        """Packed commands for all that is in it: answers first, then what they settle. It is empty afterwards."""
        commands = [*pushes(self._answers), *settle(self._entries)]
        self._answers, self._entries = {}, []
        return commands


def pushes(answers: dict[bytes, list[Answer]]) -> list[bytes]:
    """Packed commands that send answers to their reply lists, each with its expiry."""
    commands: list[bytes] = []
    for reply_to, mine in answers.items():
        commands += (pack("RPUSH", reply_to, pack_answers(mine)), pack("PEXPIRE", reply_to, REPLY_MILLISECONDS))
    return commands


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
        self.keep(commands)
        return False

    def keep(self, commands: Sequence[bytes]) -> None:
        """Keep commands, which `flush` sends once Redis is back."""
        if commands:
            with self._lock:
                self._kept.append((time.monotonic() + KEEP_SECONDS, list(commands)))

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
