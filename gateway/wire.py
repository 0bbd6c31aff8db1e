"""The gateway's connection to Redis: one socket on which many requests pipeline their commands without waiting.

redis-py's asyncio client spends more on each command than Redis does; here a whole turn of the event loop is one
write, and replies are handed out in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import parse_url
from redis.asyncio.sentinel import Sentinel
from redis.exceptions import RedisError

from workers.errors import QueueUnavailable
from workers.redis_link import CONNECT_SECONDS, Reply, pack, parse_sentinels
from workers.settings import QueueSettings

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.3
CHECK_SECONDS = 0.5
# From here on, pieces go to the kernel as they are. Put together, megabytes need new memory each time, and its pages
# cost more than the copies: up to 190 µs of the gateway's time for a body of 70 kB, instead of 80.
JOINED_BYTES = 64 * 1024

Command = bytes | list[bytes]
"""A packed command, whole or in pieces."""


def unavailable() -> QueueUnavailable:
    return QueueUnavailable("the queue does not answer; try again shortly", retry_after_seconds=1)


class Socket(asyncio.Protocol):
    """Commands out, replies in, strictly in order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[list[Reply]], int, list[Reply], float]] = deque()
        self._transport: asyncio.Transport | None = None
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        reply = self._reader.gets()
        while reply is not False:
            future, count, replies, _ = self._waiting[0]
            replies.append(reply)
            if len(replies) == count:
                self._waiting.popleft()
                if not future.done():
                    future.set_result(replies)
            reply = self._reader.gets()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        for future, *_ in self._waiting:
            if not future.done():
                future.set_exception(unavailable())
        self._waiting.clear()
        if not self.closed.done():
            self.closed.set_result(None)

    def execute(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply]]:
        """Send packed commands; the future gives their replies, error replies among them as hiredis.ReplyError."""
        future: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            future.set_exception(unavailable())
            return future
        self._waiting.append((future, len(commands), [], time.monotonic()))
        pieces = [piece for command in commands for piece in ([command] if isinstance(command, bytes) else command)]
        if sum(map(len, pieces)) < JOINED_BYTES:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)
        return future

    def oldest_wait(self) -> float:
        """Seconds that the oldest unanswered command has waited; 0 where none does."""
        return time.monotonic() - self._waiting[0][3] if self._waiting else 0.0

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Wire:
    """A socket that is opened again whenever it breaks, or has not answered for too long (half open)."""

    def __init__(self, settings: QueueSettings, *, patience_seconds: float) -> None:
        self._settings = settings
        self._patience = patience_seconds
        self._socket: Socket | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self.connected = asyncio.Event()

    async def start(self) -> None:
        """Begin to connect; does not wait for it."""
        self._tasks = [asyncio.create_task(self._keep_open()), asyncio.create_task(self._watch())]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.connected.wait(), CONNECT_SECONDS)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.abort()

    def execute(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply]]:
        """As Socket.execute; raises QueueUnavailable at once while there is no connection."""
        if self._socket is None:
            raise unavailable()
        return self._socket.execute(commands)

    async def _keep_open(self) -> None:
        while True:
            try:
                async with asyncio.timeout(3 * CONNECT_SECONDS):
                    socket = await open_socket(self._settings)
            except (OSError, TimeoutError, QueueUnavailable, hiredis.ReplyError) as error:
                log.debug("Redis cannot be reached: %s", type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except Exception:  # the task's edge: a gateway that stops connecting would never serve again
                log.exception("the connection to Redis failed unexpectedly")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._socket = socket
            self.connected.set()
            await socket.closed
            self._socket = None
            self.connected.clear()
            log.warning("the connection to Redis was lost")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self._socket is not None and self._socket.oldest_wait() > self._patience:
                self._socket.abort()


async def open_socket(settings: QueueSettings) -> Socket:
    """Connect and authenticate; raises OSError, QueueUnavailable or hiredis.ReplyError (wrong password, loading)."""
    address = await _address(settings)
    loop = asyncio.get_running_loop()
    if "path" in address:
        _, socket = await loop.create_unix_connection(Socket, address["path"])
    else:
        context = ssl.create_default_context(cafile=address.get("ssl_ca_certs")) if address.get("tls") else None
        _, socket = await loop.create_connection(Socket, address["host"], address["port"], ssl=context)
    commands: list[bytes] = []
    if address.get("password"):
        name = [address["username"]] if address.get("username") else []
        commands.append(pack("AUTH", *name, address["password"]))
    if address.get("db"):
        commands.append(pack("SELECT", address["db"]))
    commands.append(pack("PING"))
    try:
        replies = await socket.execute(commands)
    except BaseException:  # raised on: of a Redis that stands still, each attempt would leave one more open
        socket.abort()
        raise
    for reply in replies:
        if isinstance(reply, hiredis.ReplyError):
            socket.abort()
            raise reply
    return socket


async def _address(settings: QueueSettings) -> dict[str, Any]:
    url = settings.redis_url.get_secret_value()
    if not url.startswith("sentinel://"):
        parsed = dict(parse_url(url))
        tls = url.startswith("rediss://")
        return {"host": "localhost", "port": 6379, "tls": tls, **parsed}
    hosts, database, password = parse_sentinels(url)
    sentinel: Any = Sentinel(hosts, sentinel_kwargs={"password": password, "socket_timeout": CONNECT_SECONDS})  # type: ignore[no-untyped-call] # redis-py leaves it untyped
    try:
        host, port = await sentinel.discover_master(settings.redis_sentinel_master)
    except RedisError as error:
        raise unavailable() from error
    finally:
        for client in sentinel.sentinels:
            await client.aclose()
    return {"host": host, "port": port, "db": database, "password": password}
