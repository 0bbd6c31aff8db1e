"""Rates that several gateways keep together, each by blocks of tokens that it leases from one Redis."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from pydantic import SecretStr

from gateway.gcra import MICROSECONDS, SCRIPT
from gateway.limit_rates import LEASE_SECONDS, Rate
from gateway.wire import Command, Wire
from tests.conftest import RedisServer
from workers.redis_link import Reply
from workers.settings import QueueSettings


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


@contextlib.asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    """A connection of its own, as every gateway has one."""
    made = Wire(QueueSettings(redis_url=SecretStr(url)), patience_seconds=0.25)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


class Trips:
    """A connection that counts how often it is used."""

    def __init__(self, redis: Wire) -> None:
        self._redis = redis
        self.count = 0

    def execute(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply]]:
        self.count += 1
        return self._redis.execute(commands)


def new_key() -> bytes:
    return f"rate:{secrets.token_hex(6)}".encode()


async def admitted(rate: Rate) -> bool:
    """What a request does."""
    return rate.take() or await rate.wait()


async def ask(rate: Rate, per_second: float, seconds: float) -> int:
    """How many of so many requests a second are let in; they are spread evenly, and come late rather than never."""
    begun, asked, let_in = time.monotonic(), 0, 0
    while (now := time.monotonic()) < begun + seconds:
        while asked < (now - begun) * per_second:
            asked += 1
            let_in += await admitted(rate)
        await asyncio.sleep(0.002)
    return let_in


def test_two_gateways_keep_one_clients_rate_between_them(redis_server: RedisServer):
    async def work() -> None:
        async with wire(redis_server.url) as one, wire(redis_server.url) as other:
            key, seconds, per_second = new_key(), 2.0, 400
            begun = time.monotonic()
            rates = [Rate(redis, key, per_second, 40) for redis in (one, other)]
            # Three times as much as it may, and most of it at one of them.
            let_in = await asyncio.gather(ask(rates[0], 900, seconds), ask(rates[1], 300, seconds))
            allowed = 40 + per_second * (time.monotonic() - begun)
            assert 0.7 * allowed < sum(let_in) < 1.05 * allowed
            assert min(let_in) > 0.1 * allowed

    run(work())


def test_most_requests_wait_for_nothing(redis_server: RedisServer):
    async def work() -> None:
        async with wire(redis_server.url) as redis:
            rate = Rate(redis, new_key(), 2000, None)
            at_once = []
            for _ in range(60):
                for _ in range(10):
                    at_once.append(rate.take())
                    if not at_once[-1]:
                        assert await rate.wait()
                await asyncio.sleep(0.005)
            # The first few find nothing leased yet.
            assert sum(at_once) > 0.9 * len(at_once)

    run(work())


def test_all_requests_of_a_turn_wait_for_the_same_leases(redis_server: RedisServer):
    async def work() -> None:
        async with wire(redis_server.url) as redis:
            trips = Trips(redis)
            rate = Rate(trips, new_key(), 1, 50)
            assert await asyncio.gather(*(admitted(rate) for _ in range(60))) == [True] * 50 + [False] * 10
            # One brought the burst, one that nothing is left; whoever comes now is refused without asking.
            assert trips.count == 2
            assert not await admitted(rate)
            assert trips.count == 2
            assert 0 < rate.wait_seconds() <= 1
            assert rate.left() == 0

    run(work())


def test_what_one_gateway_does_not_use_goes_back_to_the_others(redis_server: RedisServer):
    async def work() -> None:
        async with wire(redis_server.url) as one, wire(redis_server.url) as other:
            key = new_key()
            idle, busy = Rate(one, key, 0.01, 10), Rate(other, key, 0.01, 10)
            assert await asyncio.gather(*(admitted(idle) for _ in range(10))) == [True] * 10
            for _ in range(6):
                idle.put_back()
            assert not await admitted(busy)
            await asyncio.sleep(LEASE_SECONDS + 0.05)
            idle.return_unused()
            assert idle.left() < 6
            # A gateway that was refused asks again when the client's next token is due; another one at once.
            third = Rate(other, key, 0.01, 10)
            assert sum(await asyncio.gather(*(admitted(third) for _ in range(10)))) == 6

    run(work())


def test_without_redis_each_gateway_keeps_the_rate_alone():
    async def work() -> None:
        async with wire("redis://127.0.0.1:1/0") as nobody:
            rate = Rate(nobody, new_key(), 0.01, 5)
            assert [await admitted(rate) for _ in range(8)] == [True] * 5 + [False] * 3
            assert rate.wait_seconds() > 0

    run(work())


def test_a_burst_is_never_smaller_than_what_can_be_leased(redis_server: RedisServer):
    async def work() -> None:
        async with wire(redis_server.url) as redis:
            assert Rate(redis, new_key(), 1000, 1).burst == 100
            assert Rate(redis, new_key(), 0.5, None).burst == 1
            assert Rate(redis, new_key(), 7.5, None).burst == 8

    run(work())


def test_a_wiped_redis_begins_with_a_new_burst_and_no_more(redis_server: RedisServer):
    client = redis_server.client()
    key, step = new_key(), repr(MICROSECONDS / 0.01)
    assert client.eval(SCRIPT, 1, key, step, 3, 5)[0] == 3
    client.delete(key)
    assert [client.eval(SCRIPT, 1, key, step, 3, 2)[0] for _ in range(3)] == [2, 1, 0]
