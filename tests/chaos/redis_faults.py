"""Redis that dies, forgets, stands still, refuses or cannot be reached."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from dataclasses import dataclass
from typing import ClassVar

import redis

from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.chaos.proxy import Mode, Proxy
from tests.chaos.servers import Queue, Sentinels


class OfRedis(Fault):
    """What breaks one Redis, not those behind Sentinels."""

    case = "C05"

    def fits(self, on: Installation) -> bool:
        return isinstance(on.queue, Queue)

    @staticmethod
    def queue(on: Installation) -> Queue:
        assert isinstance(on.queue, Queue)
        return on.queue


class RedisRestarted(OfRedis):
    """Redis is killed and started again with its append-only file."""

    case = "C04"

    def fits(self, on: Installation) -> bool:
        return isinstance(on.queue, Queue) and on.queue.node.append_only

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        self.queue(on).node.kill()

    def end(self, on: Installation) -> None:
        self.queue(on).node.start()


class RedisRestartedEmpty(OfRedis):
    """Redis is killed and started again empty."""

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        self.queue(on).node.kill()
        self.queue(on).node.forget()

    def end(self, on: Installation) -> None:
        self.queue(on).node.start()


class RedisFlushed(OfRedis):
    """FLUSHALL under load."""

    case = "C09"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        with self.queue(on).node.client() as client:
            client.flushall()


class RedisPaused(OfRedis):
    """Redis stands still."""

    case = "C06"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        self.queue(on).node.send(signal.SIGSTOP)

    def end(self, on: Installation) -> None:
        self.queue(on).node.send(signal.SIGCONT)


class Configured(OfRedis):
    """Redis refuses, by its configuration."""

    case = "C07"
    wrong: ClassVar[dict[str, str]]
    well: ClassVar[dict[str, str]]

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        self._set(on, self.wrong)

    def end(self, on: Installation) -> None:
        self._set(on, self.well)

    def _set(self, on: Installation, values: dict[str, str]) -> None:
        with self.queue(on).node.client() as client:
            for name, value in values.items():
                client.config_set(name, value)


class RedisFull(Configured):
    """Redis has no memory left."""

    wrong = {"maxmemory-policy": "noeviction", "maxmemory": "1mb"}  # noqa: RUF012 - never changed
    well = {"maxmemory": "0"}  # noqa: RUF012 - never changed


class RedisReadOnly(OfRedis):
    """Redis is a read-only replica of nobody."""

    case = "C07"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        with self.queue(on).node.client() as client:
            client.replicaof("127.0.0.1", "1")

    def end(self, on: Installation) -> None:
        with self.queue(on).node.client() as client:
            client.replicaof("NO", "ONE")


class PasswordChanged(OfRedis):
    """Redis's password is another, and whoever was signed in is thrown out."""

    case = "C07"

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        node = self.queue(on).node
        with node.client() as client:
            client.config_set("requirepass", "another")
            # By id: a client that throws itself out gets no answer.
            mine = int(client.client_id())
            others = [int(one["id"]) for one in client.client_list() if int(one["id"]) != mine]
            for one in others:
                with contextlib.suppress(redis.ResponseError):
                    client.client_kill_filter(_id=str(one))

    def end(self, on: Installation) -> None:
        node = self.queue(on).node
        with redis.Redis(port=node.port, password="another") as client:
            client.config_set("requirepass", node.password)


@dataclass(slots=True)
class Network(Fault):
    """The connection to Redis."""

    case: ClassVar[str] = "C08"
    mode: Mode = Mode.CUT

    @property
    def name(self) -> str:
        return f"The connection to Redis: {self.mode}, {self.seconds:g} s"

    def proxy(self, on: Installation) -> Proxy | None:
        return on.queue.proxy if isinstance(on.queue, Queue) else None

    def fits(self, on: Installation) -> bool:
        return self.proxy(on) is not None

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        if (proxy := self.proxy(on)) is not None:
            proxy.set(self.mode)

    def end(self, on: Installation) -> None:
        if (proxy := self.proxy(on)) is not None:
            proxy.set(Mode.PASS)


class RepliesDropped(Network):
    """Redis does what it is asked, and its answers are lost: also that of a BRPOP which took a message."""

    case = "C03"


class Failover(Fault):
    """The primary is killed, and the Sentinels choose another; the old one comes back as a replica."""

    case = "R19"

    def fits(self, on: Installation) -> bool:
        return isinstance(on.queue, Sentinels)

    def begin(self, on: Installation, chance: random.Random) -> None:  # noqa: ARG002 - there is one
        assert isinstance(on.queue, Sentinels)
        before = on.queue.primary
        before.kill()
        until = time.monotonic() + 30
        while on.queue.primary is before and time.monotonic() < until:
            time.sleep(0.1)
        before.options = ["--replicaof", "127.0.0.1", str(on.queue.primary.port)]
        before.start()
