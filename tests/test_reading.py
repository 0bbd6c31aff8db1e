"""Reading a slot's streams: every lane, every ring, and what is sent along in the same round trip."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator

import pytest
import redis

from monitoring.metrics import FOREIGN_ENTRIES
from tests.conftest import RedisServer
from workers.entries import parse_entry
from workers.hot_lanes import IDLE_READS, HotLanes
from workers.lanes import BUNDLE_FIELD, GROUP, JOB_FIELD, Keys, Lane, Priority, pack_bundle
from workers.protocols.body import Body
from workers.reading import RINGS_A_READ, Reading, Wanted
from workers.redis_link import Wire, pack

BUNDLE = b"".join(pack_bundle(b"replies", 1000, [(1, Body(b"{}"))]))
LANES = 200


class Slot:
    """The streams of a slot, read as a session does."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.keys = Keys(f"t{secrets.token_hex(4)}")
        self.bell = self.keys.bell("default", "slot")
        self.lanes = HotLanes(self.keys)
        self.wire = Wire(client)
        self.reading = Reading(self.wire, self.bell, "default:slot")

    def heat(self, count: int) -> None:
        for number in range(count):
            self.lanes.heat(Lane("m", number, Priority.INTERACTIVE, "cli").name)
        self.reading.create_groups(self.lanes)

    def ring(self, times: int) -> None:
        with self.client.pipeline() as pipeline:
            for number in range(times):
                pipeline.xadd(self.bell, {"l": f"m:{number}:interactive:cli"})
            pipeline.execute()


@pytest.fixture
def slot(redis_server: RedisServer) -> Iterator[Slot]:
    with redis.Redis.from_url(redis_server.url, protocol=2) as client:
        made = Slot(client)
        yield made
        made.wire.close()


def test_one_read_brings_an_entry_of_each_of_hundreds_of_lanes(slot: Slot):
    slot.heat(LANES)
    for hot in slot.lanes:
        slot.client.xadd(hot.key, {"b": BUNDLE})
    rings, found = slot.reading.read(slot.lanes, Wanted(list(slot.lanes)))
    assert rings == []
    assert [hot.key for hot, _ in found] == [hot.key for hot in slot.lanes]
    assert {len(entries) for _, entries in found} == {1}


def test_a_read_of_many_lanes_hears_more_than_one_ring(slot: Slot):
    slot.heat(LANES)
    slot.ring(RINGS_A_READ + 11)
    first, _ = slot.reading.read(slot.lanes, Wanted(list(slot.lanes)))
    second, _ = slot.reading.read(slot.lanes, Wanted(list(slot.lanes), block_ms=10))
    assert len(first) == RINGS_A_READ + 1
    assert len({ring_id for ring_id, *_ in first + second}) == RINGS_A_READ + 11


def test_rings_are_heard_although_a_lane_has_lost_its_group(slot: Slot):
    slot.heat(LANES)
    gone, *_ = slot.lanes
    slot.client.delete(gone.key)
    slot.ring(3)
    rings, found = slot.reading.read(slot.lanes, Wanted(list(slot.lanes)))
    assert (len(rings), found) == (3, [])
    slot.client.xadd(gone.key, {"b": BUNDLE})
    _, found = slot.reading.read(slot.lanes, Wanted(list(slot.lanes)))
    assert [hot for hot, _ in found] == [gone], "its group was made again"


def test_commands_sent_along_are_run_before_the_read(slot: Slot):
    slot.heat(1)
    [hot] = slot.lanes
    hot.rings.append(b"1-1")
    first = [pack("SET", "sent-along", "1"), pack("XADD", hot.key, "*", "b", BUNDLE)]
    _, found = slot.reading.read(slot.lanes, Wanted([hot], block_ms=1000), first)
    assert [len(entries) for _, entries in found] == [1]
    assert slot.client.get("sent-along") == b"1"
    assert hot.rings == [], "its ring was acknowledged"
    assert slot.client.xpending(hot.key, GROUP)["pending"] == 1


def test_a_busy_lane_is_read_in_full_beside_hundreds_of_idle_ones(slot: Slot):
    slot.heat(LANES)
    busy, late, *_ = slot.lanes
    for _ in range(IDLE_READS):
        slot.client.xadd(busy.key, {"b": BUNDLE})
        slot.reading.read(slot.lanes, Wanted(list(slot.lanes)))
    for hot, entries in ((busy, 30), (late, 3)):
        for _ in range(entries):
            slot.client.xadd(hot.key, {"b": BUNDLE})
    lanes, idle = slot.lanes.choose(list(slot.lanes))
    _, found = slot.reading.read(slot.lanes, Wanted(lanes, idle))
    assert [(hot, len(entries)) for hot, entries in found] == [(busy, 30), (late, 1)]
    lanes, idle = slot.lanes.choose(list(slot.lanes))
    _, found = slot.reading.read(slot.lanes, Wanted(lanes, idle))
    assert [(hot, len(entries)) for hot, entries in found] == [(late, 2)], "whoever had something is no longer idle"


def test_what_was_read_is_kept_although_an_idle_lane_has_lost_its_group(slot: Slot):
    slot.heat(LANES)
    busy, gone, *_ = slot.lanes
    for _ in range(IDLE_READS):
        slot.client.xadd(busy.key, {"b": BUNDLE})
        slot.reading.read(slot.lanes, Wanted(list(slot.lanes)))
    slot.client.delete(gone.key)
    slot.client.xadd(busy.key, {"b": BUNDLE})
    lanes, idle = slot.lanes.choose(list(slot.lanes))
    _, found = slot.reading.read(slot.lanes, Wanted(lanes, idle))
    assert [(hot, len(entries)) for hot, entries in found] == [(busy, 1)]


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ({b"odd": b"entry"}, "its field is neither a job's nor a bundle's"),
        ({JOB_FIELD: b"1", b"odd": b"entry"}, "it has 2 fields instead of one"),
        ({JOB_FIELD: b"-1"}, "a job's number or size is none that a job can have"),
        ({JOB_FIELD: b"one"}, "invalid literal"),
        ({BUNDLE_FIELD: b"no bundle"}, "is a bundle of format"),
    ],
    ids=["name", "fields", "number", "text", "bundle"],
)
def test_a_foreign_entry_is_dropped_counted_and_told_of(
    slot: Slot, entry: dict[bytes, bytes], why: str, caplog: pytest.LogCaptureFixture
):
    # given a foreign entry before one of ours
    slot.heat(1)
    (hot,) = slot.lanes
    slot.client.xadd(hot.key, entry)  # type: ignore[arg-type] # bytes are fields, too
    slot.client.xadd(hot.key, {"b": BUNDLE})
    before = FOREIGN_ENTRIES._value.get()
    # when both are read
    with caplog.at_level(logging.WARNING):
        _, found = slot.reading.read(slot.lanes, Wanted([hot]))
    # then only ours is left, and the other is in the metric and the log
    assert [len(entries) for _, entries in found] == [1]
    assert slot.client.xlen(hot.key) == slot.client.xpending(hot.key, GROUP)["pending"] == 1
    assert FOREIGN_ENTRIES._value.get() - before == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("a foreign entry was dropped: ")
    assert why in line


def test_an_entry_that_was_canceled_is_not_foreign():
    before = FOREIGN_ENTRIES._value.get()
    assert parse_entry(b"lane", b"1-0", None) is None
    assert FOREIGN_ENTRIES._value.get() == before
