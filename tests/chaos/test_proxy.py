"""The proxy of the trials breaks connections as it is told, and mends them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.chaos.proxy import Mode, Proxy, to_port
from tests.chaos.servers import Queue, RedisNode


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Queue]:
    made = Queue(RedisNode(tmp_path_factory.mktemp("redis"), "secret"))
    yield made
    made.stop()


def once(queue: Queue) -> redis.Redis:
    """A client that does not try again by itself."""
    never = Retry(NoBackoff(), 0)
    return redis.Redis(port=queue.port, password="secret", socket_timeout=0.5, protocol=2, retry=never)


def ask(queue: Queue, *words: str) -> object:
    with once(queue) as client:
        return client.execute_command(*words)


@pytest.mark.parametrize("mode", [Mode.CUT, Mode.BLACK_HOLE, Mode.DROP_REPLIES])
def test_nobody_is_answered_while_it_is_broken_and_everybody_afterwards(queue: Queue, mode: Mode) -> None:
    assert ask(queue, "PING") is True
    queue.proxy.set(mode)
    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        ask(queue, "PING")
    queue.proxy.set(Mode.PASS)
    assert ask(queue, "PING") is True


def test_a_dropped_reply_belongs_to_something_that_was_done(queue: Queue) -> None:
    with once(queue) as client:
        client.ping()
        queue.proxy.set(Mode.DROP_REPLIES)
        with pytest.raises(redis.ConnectionError):
            client.lpush("list", "a")
        queue.proxy.set(Mode.PASS)
        assert client.lrange("list", 0, -1)[-1:] == [b"a"]


def test_a_place_can_be_a_socket_in_a_folder(queue: Queue, tmp_path: Path) -> None:
    proxy = Proxy(to_port(queue.node.port))
    proxy.listen(path=tmp_path / "s")
    with redis.Redis(unix_socket_path=str(tmp_path / "s"), password="secret", protocol=2) as client:
        assert client.ping() is True
    proxy.close()
