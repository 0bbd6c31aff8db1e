"""Answers on their way out: those of one turn together, none kept back for long, none lost while Redis is away."""

from __future__ import annotations

import redis

from tests.conftest import RedisServer
from workers.entries import Entry
from workers.lanes import Answer, unpack_answers
from workers.outbox import PARCEL_SECONDS, Outbox, Parcel
from workers.redis_link import pack


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def entry(lane: bytes, number: int) -> Entry:
    return Entry(lane, b"%d-0" % number, None, None)


def added(client: redis.Redis, lane: str) -> Entry:
    """An entry that somebody has read and not acknowledged."""
    client.xgroup_create(lane, "g", "0", mkstream=True)
    [[_, [[entry_id, _]]]] = client.xreadgroup("g", "c", {lane: ">"}) if client.xadd(lane, {"b": "x"}) else []
    return Entry(lane.encode(), entry_id, None, None)


def test_answers_of_several_versions_reach_each_gateway_in_one_push(redis_server: RedisServer):
    with redis_server.client() as client:
        first, second = added(client, "parcel-lane-1"), added(client, "parcel-lane-2")
        parcel = Parcel()
        parcel.add([first], {b"parcel-a": [Answer(1, 200, b"one")], b"parcel-b": [Answer(7, 200, b"seven")]})
        parcel.add([second], {b"parcel-a": [Answer(2, 400, b"two")]})
        outbox = Outbox(client)
        assert outbox.send(parcel.take())
        outbox.close()
        pushed = client.lrange("parcel-a", 0, -1)
        assert [answer.number for packed in pushed for answer in unpack_answers(packed)] == [1, 2]
        assert (len(pushed), client.llen("parcel-b")) == (1, 1)
        assert min(client.pttl("parcel-a"), client.pttl("parcel-b")) > 0
        for lane in ("parcel-lane-1", "parcel-lane-2"):
            assert (client.xlen(lane), client.xpending(lane, "g")["pending"]) == (0, 0)


def test_a_parcel_is_empty_once_it_was_taken():
    parcel = Parcel()
    assert parcel.take() == []
    parcel.add([entry(b"lane", 1)], {b"a": [Answer(1, 200, b"one")]})
    assert len(parcel.take()) == 4, "a push and its expiry, an acknowledgement and a deletion"
    assert parcel.take() == []


def test_a_parcel_is_due_two_milliseconds_after_its_first_answer():
    clock = Clock()
    parcel = Parcel(clock)
    clock.now += 1
    assert not parcel.due, "nothing is in it"
    parcel.add([entry(b"lane", 1)], {})
    clock.now += PARCEL_SECONDS / 2
    parcel.add([entry(b"lane", 2)], {})
    assert not parcel.due
    clock.now += PARCEL_SECONDS
    assert parcel.due
    parcel.take()
    assert not parcel.due


def test_what_is_kept_is_sent_in_order_once_redis_is_back(redis_server: RedisServer):
    with redis_server.client() as client:
        outbox = Outbox(client)
        outbox.keep([])
        assert not outbox.waiting
        outbox.keep([pack("RPUSH", "kept", "first")])
        outbox.keep([pack("RPUSH", "kept", "second")])
        assert outbox.waiting
        outbox.flush()
        outbox.close()
        assert client.lrange("kept", 0, -1) == [b"first", b"second"]
        assert not outbox.waiting
