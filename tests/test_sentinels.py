"""Redis behind Sentinels: every kind of connection finds the primary, and the next one after a failover."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest
import redis

from gateway import wire
from model_store.errors import SluiceError
from tests.chaos.servers import MASTER, Sentinels
from workers.redis_link import Wire, connect, pack
from workers.settings import QueueSettings

FAILOVER_SECONDS = 40


@pytest.fixture
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sentinels]:
    made = Sentinels(tmp_path_factory.mktemp("sentinels"), "secret")
    yield made
    made.stop()


def test_a_wire_and_a_gateways_wire_find_the_primary_and_the_next_one(sentinels: Sentinels):
    settings = QueueSettings(redis_url=sentinels.url, redis_sentinel_master=MASTER)
    worker = Wire(connect(settings))  # the client itself is forgotten at once

    async def use() -> None:
        gateway = wire.Wire(settings, patience_seconds=2)
        await gateway.start()
        assert worker.execute([pack("SET", "a", "1")]) == [b"OK"]
        assert await gateway.execute([pack("GET", "a")]) == [b"1"]
        first = sentinels.primary
        first.kill()
        until = time.monotonic() + FAILOVER_SECONDS
        while True:
            try:
                assert worker.execute([pack("SET", "b", "2")]) == [b"OK"]
                assert await gateway.execute([pack("GET", "b")]) == [b"2"]
                break
            except (redis.RedisError, SluiceError, AssertionError):
                assert time.monotonic() < until, "nobody found the new primary"
                await asyncio.sleep(0.1)
        assert sentinels.primary is not first
        await gateway.close()

    asyncio.run(use())
    worker.close()
