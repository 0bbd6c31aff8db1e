"""Slots as whoever rings knows them: which are announced in which pool, and what they have loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.queue_kit import tell_slots, worker_settings
from workers.bells import choose
from workers.cached_predictors import CacheFigures, LoadedPredictor
from workers.lanes import Keys, Lane, Priority
from workers.loaded_versions import (
    FIGURES_FIELD,
    MOST_VERSIONS,
    announcement,
    budget_of,
    figures_of,
    versions_of,
    whole_question,
)
from workers.pools import AssignedPools, OnePool
from workers.redis_link import Wire, connect
from workers.ringer import Ringer
from workers.slot_board import DESERTED_SECONDS, LOADED_A_LOOK, SlotBoard
from workers.slots import MOST_ANNOUNCED, announced

KEYS = Keys("p")
FIGURES = CacheFigures(100, 50, 10, 7, 3, 3, 0.5, 1)


def test_a_lane_is_rung_where_its_version_is_loaded_though_others_come_first_in_its_order():
    slots = tuple("abcdefgh")
    first, *others = (choose(slots, "m", 1, attempt) for attempt in range(8))
    has_it = others[4]
    assert has_it is not None
    loaded = {has_it: {b"m:1"}, others[0]: {b"m:2", b"n:1"}}
    order = [choose(slots, "m", 1, attempt, loaded) for attempt in range(8)]
    assert order == [has_it, *[slot for slot in (first, *others) if slot != has_it]]


def test_of_several_that_have_it_everybody_chooses_the_same():
    slots = tuple("abcdefgh")
    loaded = {slot: {b"m:1"} for slot in slots[:4]}
    backwards = dict(reversed(loaded.items()))
    assert choose(slots, "m", 1, 0, loaded) == choose(slots, "m", 1, 0, backwards)
    assert {choose(slots, "m", 1, attempt, loaded) for attempt in range(4)} == set(slots[:4])


def test_a_ringer_learns_who_has_what():
    ringer, lane = Ringer(KEYS, OnePool("default")), Lane("m", 1, Priority.INTERACTIVE, "c")
    order = [choose(("a", "b", "c"), "m", 1, attempt) for attempt in range(3)]
    last = order[-1]
    assert last is not None
    tell_slots(ringer, "a", "b", "c", loaded={last: "n:4,m:1"})
    new = ringer.due(lane)
    assert new is not None
    assert (new.pool, new.slot) == ("default", last)


def test_a_look_asks_a_few_slots_and_in_time_all():
    board = SlotBoard(KEYS)
    slots = [f"w{number:03}" for number in range(40)]
    asked: list[bytes] = []
    for _ in range(5):
        commands = board.question({"default"})
        assert len(commands) <= 3 + LOADED_A_LOOK
        asked += commands[3:]
        scores = [word for slot in slots for word in (slot.encode(), b"0")]
        board.learn([[0, 0], [], scores, *[b"m:1"] * (len(commands) - 3)])
    assert {slot for slot in slots if any(slot.encode() in command for command in asked)} == set(slots)
    assert board.loaded("default") == {slot: {b"m:1"} for slot in slots}
    # What is announced no more is forgotten.
    board.learn([[100, 0], [], [b"w001", b"99"], *[b"m:1"] * (len(board.question({"default"})) - 3)])
    assert list(board.loaded("default")) == ["w001"]


def test_pools_that_no_model_names_are_found_where_workers_are_in_them():
    board = SlotBoard(KEYS)
    board.question({"default"})
    board.learn([[0, 0], [b"gpu"], [b"w.0", b"0"]])
    assert board.by_pool == {"default": ("w.0",)}
    board.question({"default"})
    board.learn([[0, 0], [b"gpu"], [b"w.0", b"0"], [b"g.0", b"0"], b"m:1"])
    assert board.by_pool == {"default": ("w.0",), "gpu": ("g.0",)}


def test_a_pool_without_workers_is_deserted_after_a_while_and_the_ordinary_one_never():
    now = [100.0]

    class Pools:
        ordinary = "default"
        named = ("default", "gpu")

        def of(self, model: str) -> str:
            return model

    ringer = Ringer(KEYS, Pools(), lambda: now[0])
    lanes = [Lane(pool, 1, Priority.INTERACTIVE, "c") for pool in ("default", "gpu")]

    def look(*slots: bytes) -> list[str | None]:
        ringer.question()
        ringer.learn([[0, 0], [b"default"], [], [word for slot in slots for word in (slot, b"0")]])
        return [ringer.deserted(lane) for lane in lanes]

    assert look() == [None, None]
    now[0] += DESERTED_SECONDS
    assert look() == [None, "gpu"]
    assert look(b"g.0") == [None, None]
    assert ringer.by_pool == {"default": (), "gpu": ("g.0",)}


def test_what_a_slot_says_is_read_as_it_was_said_and_nonsense_is_nothing(redis_server: RedisServer, tmp_path: Path):
    settings = worker_settings(redis_server.url, "sqlite://", tmp_path)
    keys, client = Keys(settings.key_prefix), connect(settings)
    wire = Wire(client)
    loaded = [LoadedPredictor(model, 1, "onnx", 10, 0) for model in ("b", "a")]
    wire.execute(announcement(keys, "default", ["w.0"], 4711, loaded, FIGURES))

    [reply] = wire.execute([whole_question(keys, "default", "w.0")])
    told = figures_of(reply)
    assert told is not None
    assert (told.process, told.versions, told.loaded, told.hits) == (4711, ("a:1", "b:1"), 2, 7)
    assert versions_of(reply[0]) == {b"a:1", b"b:1"}
    assert 0 < client.pttl(keys.loaded("default", "w.0")) <= 3_600_000

    forged = reply[1].replace(b'"hits": 7', b'"hits": %b')
    figures = [forged % number for number in (b"7.5", b"NaN", b"9" * 400, b'"7"', b"null")]
    for nonsense in (b"", b"{}", b"[1]", b"\xff", b'{"process": "x"}', b"[" * 100_000, *figures):
        client.hset(keys.loaded("default", "w.0"), FIGURES_FIELD, nonsense)
        assert figures_of(wire.execute([whole_question(keys, "default", "w.0")])[0]) is None
    assert figures_of(wire.execute([whole_question(keys, "default", "none")])[0]) is None
    wire.close()
    client.close()


def test_what_redis_says_beyond_reason_is_cut_off_or_nothing():
    assert len(versions_of(b"\n".join(b"m:%d" % number for number in range(5_000)))) == MOST_VERSIONS
    assert [budget_of(reply) for reply in (b"500", b"9" * 5_000, b"-1", b"1e9", None)] == [500, None, None, None, None]


def test_names_that_are_no_text_hide_no_slot_of_others():
    board = SlotBoard(KEYS)
    board.question({"default"})
    board.learn([[0, 0], [b"\xff", b"gpu"], [b"\xfe", b"0", b"w.0", b"0"]])
    assert "w.0" in board.of("default")
    board.question({"default"})
    board.learn([[0, 0], [], [b"w.0", b"0"], [b"g.0", b"0"], [], *[b"m:1"] * 2])
    assert board.of("gpu") == ("g.0",)


def test_of_too_many_slots_the_last_ones_are_known(redis_server: RedisServer, tmp_path: Path):
    settings = worker_settings(redis_server.url, "sqlite://", tmp_path)
    keys = Keys(settings.key_prefix)
    with connect(settings) as client:
        board, wire = SlotBoard(keys), Wire(client)
        now = client.time()[0]
        forged = {f"f{number}.0": now + 1 for number in range(MOST_ANNOUNCED + 10)}
        client.zadd(keys.slots("default"), forged | {"w.0": now + 2})
        board.learn(wire.execute(board.question({"default"})))
        wire.close()
        for known in (board.of("default"), announced(client, keys, "default")):
            assert len(known) == MOST_ANNOUNCED
            assert "w.0" in known
        client.delete(keys.slots("default"))


@pytest.mark.parametrize(("pool", "elsewhere"), [("gpu", True), ("mine", False)])
def test_a_worker_knows_what_names_another_pool(pool: str, elsewhere: bool):
    pools = AssignedPools("mine")
    assert not pools.elsewhere("m")
    pools.learn({"m": pool})
    assert pools.elsewhere("m") is elsewhere


def test_a_lane_that_was_rung_before_its_model_moved_is_left_and_one_rung_since_is_not():
    now = [10.0]
    pools = AssignedPools("mine", lambda: now[0])
    pools.learn({"m": "mine"})
    now[0] = 20.0
    assert not pools.left("m", since=11.0)
    pools.learn({})  # back to those that name none, which gateways may look for elsewhere
    assert pools.left("m", since=11.0)
    assert not pools.left("m", since=21.0)
    assert not pools.left("other", since=0.0)
