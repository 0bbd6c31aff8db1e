"""Messages that come too often, and messages that nobody of ours has sent."""

from __future__ import annotations

import base64
import json
import pickle
import random
import uuid

import redis
from sqlalchemy import select

from model_store.database import transaction
from tests.chaos.fault import Fault
from tests.chaos.installation import Installation
from tests.chaos.servers import Queue
from workers.broker import DRAIN, PREPARE_QUEUE
from workers.lanes import BUNDLE_FIELD, JOB_FIELD, RING_FIELD, Keys
from workers.slots import queue_of, slots_of
from workers.tables import Job

TIMES = 100
HUGE_BYTES = 8 * 1024 * 1024


class InRedis(Fault):
    """What anybody could write who can write to Redis."""

    case = "C23"

    def fits(self, on: Installation) -> bool:
        return isinstance(on.queue, Queue)

    @staticmethod
    def client(on: Installation) -> redis.Redis:
        assert isinstance(on.queue, Queue)
        return on.queue.node.client()

    @staticmethod
    def queues(on: Installation) -> list[str]:
        names = [queue_of("default", name) for name in on.names("worker")]
        return [f"{on.cluster.key_prefix}:celery:{name}" for name in [*names, PREPARE_QUEUE]]


class EntriesRepeated(InRedis):
    """Each job that is open is in its lane a hundred times more, and each worker is told a hundred times to drain."""

    case = "C22"

    def begin(self, on: Installation, chance: random.Random) -> None:
        keys = Keys(on.cluster.key_prefix)
        with transaction(on.sessions, write=False) as session:
            newest = select(Job.number, Job.lane).order_by(Job.number.desc()).limit(20)
            jobs = session.execute(newest).all()
        with self.client(on) as client:
            lines = client.pipeline(transaction=False)
            for number, lane in jobs:
                for _ in range(TIMES):
                    lines.xadd(keys.lane(lane), {JOB_FIELD: number})
            for worker, queue in zip(on.names("worker"), self.queues(on), strict=False):
                told = celery_message(
                    DRAIN, ["default", slots_of(worker, 2)[chance.randrange(2)], "a token of nobody's"]
                )
                lines.lpush(queue, *[told] * TIMES)
            lines.execute()


class MessagesForged(InRedis):
    """Forged messages: unknown tasks and ids, wrong arguments, pickles, noise, megabytes, commands to all workers."""

    def begin(self, on: Installation, chance: random.Random) -> None:
        keys = Keys(on.cluster.key_prefix)
        with transaction(on.sessions, write=False) as session:
            lane = session.scalars(select(Job.lane).order_by(Job.number.desc()).limit(1)).one()
        with self.client(on) as client:
            for queue in self.queues(on):
                for message in forgeries(chance):
                    client.lpush(queue, message)
            for fields in (
                {JOB_FIELD: 2**62},
                {JOB_FIELD: b"none"},
                {JOB_FIELD: b""},
                {BUNDLE_FIELD: chance.randbytes(200)},
                {b"?": b"!"},
            ):
                client.xadd(keys.lane(lane), fields)
            for worker in on.names("worker"):
                bell = keys.bell("default", slots_of(worker, 1)[0])
                client.xadd(bell, {RING_FIELD: b"no lane"})
                client.xadd(bell, {RING_FIELD: chance.randbytes(50)})
            broadcast: dict[str, object] = {"method": "shutdown", "arguments": {}, "destination": None}
            client.publish(f"/0.{on.cluster.key_prefix}:celery:celery.pidbox", json.dumps(broadcast))


def celery_message(task: str, arguments: list[object], **headers: object) -> bytes:
    """A message as Celery lays it on Redis."""
    body = json.dumps([arguments, {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]).encode()
    return wrapped(body, "application/json", task, **headers)


def wrapped(body: bytes, content_type: str, task: str, **headers: object) -> bytes:
    number = str(uuid.uuid4())
    envelope = {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": content_type,
        "headers": {"lang": "py", "task": task, "id": number, "root_id": number, "argsrepr": "", **headers},
        "properties": {
            "correlation_id": number,
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": "x"},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": number,
        },
    }
    return json.dumps(envelope).encode()


def forgeries(chance: random.Random) -> list[bytes]:
    """Messages that no worker may follow, and after which it must go on."""
    return [
        celery_message("os.system", ["true"]),
        celery_message(DRAIN, []),
        celery_message(DRAIN, [None, {"a": 1}, 3]),
        celery_message(DRAIN, ["default", "no-such-slot", "token"]),
        celery_message(DRAIN, ["default", "x" * HUGE_BYTES, "token"]),
        celery_message(DRAIN, ["default", "slot", "token"], eta="2999-01-01T00:00:00"),
        wrapped(pickle.dumps(print), "application/x-python-serialize", DRAIN),
        wrapped(chance.randbytes(300), "application/json", DRAIN),
    ]
