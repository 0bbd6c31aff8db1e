"""Redis's channel of ended jobs: whoever waits in this gateway hears of an end at once, as long as Redis is there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis import asyncio as async_redis

from workers.lanes import Keys
from workers.redis_link import CONNECT_SECONDS, parse_sentinels
from workers.settings import QueueSettings

RETRY_SECONDS = 0.5
READ_SECONDS = 5.0

Listener = Callable[[Sequence[str]], None]


class EndChannel:
    """Tells its listeners, on the event loop, the ids of jobs that ended. A message may be lost: each looks as well."""

    def __init__(self, settings: QueueSettings, listeners: Sequence[Listener]) -> None:
        self._settings = settings
        self._channel = Keys(settings.key_prefix).ends()
        self._listeners = tuple(listeners)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        while True:
            client = connect_async(self._settings)
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(self._channel)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=READ_SECONDS)
                        if message is not None:
                            self._tell(message["data"].decode("ascii", "replace").split())
            except (redis.RedisError, OSError):
                # Those who wait look in SQL once a second meanwhile.
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await client.aclose()

    def _tell(self, ids: Sequence[str]) -> None:
        for listener in self._listeners:
            listener(ids)


def connect_async(settings: QueueSettings) -> async_redis.Redis:
    """redis-py's asyncio client, for what is not on the request path."""
    url = settings.redis_url.get_secret_value()
    options: dict[str, Any] = {"socket_connect_timeout": CONNECT_SECONDS, "protocol": 2}
    if not url.startswith("sentinel://"):
        return async_redis.Redis.from_url(url, **options)
    hosts, database, password = parse_sentinels(url)
    sentinel: Any = async_redis.Sentinel(hosts, sentinel_kwargs={"password": password, **options}, password=password)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
    client: async_redis.Redis = sentinel.master_for(settings.redis_sentinel_master, db=database)
    return client
