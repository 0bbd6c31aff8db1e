"""Requests a second, kept by all gateways together: each leases tokens from Redis in blocks, ahead of need.

A request that finds a token in its gateway's block waits for nothing. Blocks are a tenth of a second of what the client
asks for here, so that gateways share a rate as their callers do; what is left of one goes back after a while.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Protocol

import hiredis

from gateway.gcra import MICROSECONDS, SCRIPT, Gcra, Taken
from gateway.wire import Command
from monitoring.metrics import RATE_LEASES
from workers.errors import QueueUnavailable
from workers.redis_link import Reply, pack

BLOCK_SECONDS = 0.1
# After a lease that came back short. What comes in meanwhile fits into the smallest burst twice.
PAUSE_SECONDS = 0.05
LEASE_SECONDS = 0.3
# The lease that is under way may have been asked for by fewer requests than wait for it.
MOST_TRIPS = 2


class Redis(Protocol):
    """What leasing needs of the connection."""

    def execute(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply]]:
        """As gateway.wire.Wire; raises QueueUnavailable."""


class Rate:
    """One client's tokens at this gateway. All of it runs on the event loop.

    `burst` is what the client may have at once: at least a tenth of a second's worth, or blocks could not be leased.
    """

    def __init__(self, redis: Redis, key: bytes, rate: float, burst: int | None) -> None:
        self.rate = rate
        self._most = max(1, math.ceil(rate * BLOCK_SECONDS))
        self.burst = max(self._most, math.ceil(rate) if burst is None else burst)
        self._redis = redis
        self._key = key
        self._local = Gcra(rate, self.burst)
        self._pause = min(PAUSE_SECONDS, self.burst / rate / 2)
        self._tokens = 0
        self._low = 0
        self._until = 0.0
        self._spent_until = 0.0
        self._room, self._told_at = self.burst, time.monotonic()
        self._asked, self._asked_since = 0, time.monotonic()
        self._waiting = 0
        self._lease: asyncio.Event | None = None

    def take(self) -> bool:
        """Whether there is a token for one more request, here and now."""
        self._asked += 1
        if not self._tokens:
            return False
        self._tokens -= 1
        if self._tokens < self._low and self._lease is None and time.monotonic() >= self._spent_until:
            self._begin_lease()
        return True

    def put_back(self) -> None:
        """A request that took a token does not go after all."""
        self._tokens += 1

    async def wait(self) -> bool:
        """Whether a lease, one round trip to Redis, brings a token; not asked for where it is known to bring none."""
        for _ in range(MOST_TRIPS):
            lease = self._lease
            if lease is None:
                if time.monotonic() < self._spent_until:
                    return False
                lease = self._begin_lease()
            self._waiting += 1
            try:
                await lease.wait()
            finally:
                self._waiting -= 1
            if self._tokens:
                self._tokens -= 1
                return True
        return False

    def wait_seconds(self) -> float:
        """When a request that was refused may come again."""
        return max(0.0, self._spent_until - time.monotonic())

    def left(self) -> int:
        """How many more requests may come at once, as far as this gateway knows."""
        since = time.monotonic() - self._told_at
        return min(self.burst, int(self._room + since * self.rate) + self._tokens)

    def return_unused(self) -> None:
        """Give back what of a lease was not used in its time: other gateways may have callers for it."""
        if not self._tokens or self._lease is not None or time.monotonic() < self._until:
            return
        unused, self._tokens = self._tokens, 0
        try:
            self._ask(-unused).add_done_callback(_expected)
        except QueueUnavailable:
            # They came from this process, or from a Redis that is gone.
            return

    def _begin_lease(self) -> asyncio.Event:
        self._lease = asyncio.Event()
        # At the end of this turn: all of its requests are known then.
        asyncio.get_running_loop().call_soon(self._send)
        return self._lease

    def _send(self) -> None:
        wanted = self._block()
        try:
            self._ask(wanted).add_done_callback(partial(self._answered, wanted))
        except QueueUnavailable:
            self._take_locally(wanted)

    def _ask(self, wanted: int) -> asyncio.Future[list[Reply]]:
        step = MICROSECONDS / self.rate
        return self._redis.execute([pack("EVAL", SCRIPT, 1, self._key, repr(step), self.burst, wanted)])

    def _block(self) -> int:
        """How much to lease: what was asked for in a block's time, and at least for those who wait."""
        now = time.monotonic()
        wanted = math.ceil(self._asked * BLOCK_SECONDS / max(now - self._asked_since, 0.001))
        self._asked, self._asked_since = 0, now
        return min(self.burst, max(1, self._waiting, min(wanted, self._most)))

    def _answered(self, wanted: int, done: asyncio.Future[list[Reply]]) -> None:
        if done.cancelled() or done.exception() is not None or isinstance(done.result()[0], hiredis.ReplyError):
            self._take_locally(wanted)
            return
        count, wait, room = done.result()[0]
        self._put(wanted, Taken(count, wait / MICROSECONDS, room))
        RATE_LEASES.labels("whole" if count == wanted else "short").inc()

    def _take_locally(self, wanted: int) -> None:
        """Redis is away: a limit is no right, so the client goes on, at its rate in each gateway."""
        self._put(wanted, self._local.take(wanted, time.monotonic() * MICROSECONDS))
        RATE_LEASES.labels("local").inc()

    def _put(self, wanted: int, taken: Taken) -> None:
        now = time.monotonic()
        self._tokens += taken.count
        self._room, self._told_at = taken.room, now
        self._until = now + LEASE_SECONDS
        if taken.count < wanted:
            self._low = 0
            self._spent_until = now + max(taken.wait_seconds, self._pause)
        else:
            self._low = wanted // 2
        if self._lease is not None:
            self._lease.set()
            self._lease = None


def _expected(done: asyncio.Future[list[Reply]]) -> None:
    """Looks at an outcome that changes nothing, so that asyncio does not call a failure forgotten."""
    if not done.cancelled():
        done.exception()
