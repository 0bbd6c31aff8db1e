"""Connections to Redis: a client for occasional commands, and a wire for pipelines of commands packed beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from hiredis import pack_command
from redis.sentinel import Sentinel

from workers.settings import QueueSettings

CONNECT_SECONDS = 1.0
READ_SECONDS = 5.0
# A turn of requests is 120 kB and more; by pieces of redis-py's 32 kB, reading them took half as long again.
READ_BYTES = 128 * 1024

Reply = Any


def pack(*words: bytes | str | int | float) -> bytes:
    """One command in Redis's wire format."""
    packed: bytes = pack_command(words)  # type: ignore[arg-type] # it is typed for one word only
    return packed


def bulk(word: bytes) -> bytes:
    """One word as it stands in a packed command."""
    return b"$%d\r\n%b\r\n" % (len(word), word)


def pack_pieces(*words: bytes, last: Sequence[bytes]) -> list[bytes]:
    """One command in pieces, whose last word is given in pieces: a word of a megabyte is not copied for it."""
    head = [b"*%d\r\n" % (len(words) + 1), *map(bulk, words), b"$%d\r\n" % sum(map(len, last))]
    return [b"".join(head), *last, b"\r\n"]


def connect(settings: QueueSettings, *, read_seconds: float = READ_SECONDS) -> redis.Redis:
    """A client of the configured Redis, through Sentinel where the URL says so; replies are bytes, waits bounded."""
    url = settings.redis_url.get_secret_value()
    options: dict[str, Any] = {
        "socket_timeout": read_seconds,
        "socket_connect_timeout": CONNECT_SECONDS,
        "socket_keepalive": True,
        # RESP2 keeps the shape of XREADGROUP's answer the same on every server version.
        "protocol": 2,
    }
    if not url.startswith("sentinel://"):
        return redis.Redis.from_url(url, **options)
    hosts, database, password = parse_sentinels(url)
    sentinel: Any = Sentinel(hosts, sentinel_kwargs={"password": password, **options}, password=password, **options)  # type: ignore[no-untyped-call] # redis-py leaves it untyped
    client: redis.Redis = sentinel.master_for(settings.redis_sentinel_master, db=database)
    return client


def parse_sentinels(url: str) -> tuple[list[tuple[str, int]], int, str | None]:
    """Hosts, database and password of `sentinel://:password@host:port,host:port/0`."""
    rest = url.removeprefix("sentinel://")
    rest, _, database = rest.partition("/")
    credentials, _, hosts = rest.rpartition("@")
    password = credentials.partition(":")[2] or None
    pairs = [host.partition(":") for host in hosts.split(",")]
    return [(name, int(port or 26379)) for name, _, port in pairs], int(database or 0), password


class Wire:
    """One connection that sends packed commands in one write; redis-py's own pipelines cost several times that."""

    def __init__(self, client: redis.Redis) -> None:
        # Not by the pool's `make_connection`: it counts what it makes, never forgets one, and refuses the hundredth.
        # Kept, since a connection by way of Sentinel holds it weakly.
        self._pool: Any = client.connection_pool
        options = {**self._pool.connection_kwargs, "socket_read_size": READ_BYTES}
        self._connection: Any = self._pool.connection_class(**options)

    def execute(self, commands: Sequence[bytes]) -> list[Reply]:
        """Replies in order; an error reply is returned as a redis.ResponseError, not raised.

        Raises redis.ConnectionError or redis.TimeoutError; the connection is then closed and the next call connects.
        """
        try:
            if not self._connection.is_connected:
                # Sending would connect as well, but to a Sentinel's primary only `connect` finds the way.
                self._connection.connect()
            self._connection.send_packed_command([b"".join(commands)], check_health=False)
            return [self._read() for _ in commands]
        except BaseException:  # closed and raised again
            # Replies still under way would be taken for those of the next commands.
            self._connection.disconnect()
            raise

    def close(self) -> None:
        self._connection.disconnect()

    def _read(self) -> Reply:
        try:
            return self._connection.read_response(disable_decoding=True)
        except redis.ResponseError as error:
            return error
