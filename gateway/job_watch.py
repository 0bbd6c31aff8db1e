"""Waiting for jobs to end: told by Redis at once, and looked up in SQL once a second, since a message may be lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import redis
from redis import asyncio as async_redis

from workers.lanes import Keys
from workers.redis_link import CONNECT_SECONDS, parse_sentinels
from workers.settings import QueueSettings

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
RETRY_SECONDS = 0.5
READ_SECONDS = 5.0


class JobWatch:
    """Tells waiting requests that a job of theirs may have ended."""

    def __init__(self, settings: QueueSettings) -> None:
        self._settings = settings
        self._channel = Keys(settings.key_prefix).ends()
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._listen())

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextlib.contextmanager
    def watching(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set when the job may have ended; to be entered before the job is looked up."""
        event = asyncio.Event()
        self._waiting.setdefault(job_id, set()).add(event)
        try:
            yield event
        finally:
            events = self._waiting[job_id]
            events.discard(event)
            if not events:
                del self._waiting[job_id]

    def ended(self, ids: list[str]) -> None:
        for job_id in ids:
            for event in self._waiting.get(job_id, ()):
                event.set()

    async def _listen(self) -> None:
        while True:
            client = connect_async(self._settings)
            try:
                async with client.pubsub() as channel:
                    await channel.subscribe(self._channel)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=READ_SECONDS)
                        if message is not None:
                            self.ended(message["data"].decode().split())
            except (redis.RedisError, OSError):
                # Those who wait look in SQL once a second meanwhile.
                await asyncio.sleep(RETRY_SECONDS)
            finally:
                await client.aclose()


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
