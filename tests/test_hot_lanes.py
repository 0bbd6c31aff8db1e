"""Turns: which lanes a session reads next, and that no client can make another wait."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from monitoring import metrics
from tests.conftest import RedisServer
from tests.queue_kit import (
    Caller,
    Queue,
    RunningSlot,
    make_queue,
    running_slot,
    serve_model,
    slow_model,
    worker_settings,
)
from workers.hot_lanes import (
    COOL_SECONDS,
    IDLE_READS,
    LANES_A_READ,
    MOST_LANES_A_READ,
    READ_PREDICTIONS,
    TURN_PREDICTIONS,
    HotLane,
    HotLanes,
)
from workers.lanes import Keys, Lane, Priority, entry_ms


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def lane(client: str, priority: Priority = Priority.INTERACTIVE) -> Lane:
    return Lane("m", 1, priority, client)


def heated(*lanes: Lane) -> tuple[HotLanes, Clock]:
    clock = Clock()
    hot = HotLanes(Keys("p"), clock)
    for one in lanes:
        hot.heat(one.name)
    return hot, clock


def in_turn(hot: HotLanes, candidates: list[HotLane]) -> list[HotLane]:
    """The lanes whose turn it is, without idle ones."""
    return hot.choose(candidates)[0]


def test_a_client_that_floods_gets_no_more_turns_than_one_that_sends_little():
    hot, _ = heated(lane("flood"), lane("quiet"))
    read = {"flood": 0, "quiet": 0}
    for _turn in range(100):
        chosen = in_turn(hot, hot.readable(Priority.INTERACTIVE, None))
        count = hot.count_for(chosen)
        for one in chosen:
            # The flood's entries hold 64 predictions each, the quiet client's one.
            per_entry = 64 if one.lane.client_id == "flood" else 1
            hot.paid(one, count, count * per_entry)
            read[one.lane.client_id] += count * per_entry
    assert 0.5 < read["flood"] / read["quiet"] < 2


def test_a_lane_that_was_alone_owes_nothing_when_another_wakes_up():
    hot, _ = heated(lane("alone"))
    [only] = in_turn(hot, hot.readable(None, None))
    for _ in range(50):
        hot.paid(only, 100, 6400)
        assert in_turn(hot, hot.readable(None, None)) == [only]
    hot.heat(lane("new").name)
    assert {one.lane.client_id for one in in_turn(hot, hot.readable(None, None))} == {"alone", "new"}


def test_a_lane_whose_debt_is_forgiven_is_read_with_the_others_for_a_turn_of_predictions():
    hot, _ = heated(lane("busy"), *(lane(f"idle{i}") for i in range(50)))
    [busy, *idle] = in_turn(hot, hot.readable(None, None))
    hot.paid(busy, 10, 200)
    hot.empty(idle)
    assert busy not in in_turn(hot, hot.readable(None, None))
    hot.forgive(hot.readable(None, None))
    for _ in range(TURN_PREDICTIONS):
        assert busy in in_turn(hot, hot.readable(None, None))
        hot.paid(busy, 1, 1)
        hot.empty(idle)


def test_a_lane_keeps_no_credit_for_the_time_in_which_it_was_empty():
    hot, _ = heated(lane("idle"), lane("busy"))
    for _ in range(50):
        for one in in_turn(hot, hot.readable(None, None)):
            hot.empty([one]) if one.lane.client_id == "idle" else hot.paid(one, 10, 10)
    idle = next(one for one in hot if one.lane.client_id == "idle")
    assert idle.credit <= TURN_PREDICTIONS


def test_a_read_brings_about_a_turn_of_predictions_and_at_least_one_entry():
    hot, _ = heated(lane("a"))
    [one] = in_turn(hot, hot.readable(None, None))
    assert hot.count_for([one]) == TURN_PREDICTIONS
    for _ in range(50):
        hot.paid(one, 1, 64)
    assert hot.count_for([one]) in (2, 3), "entries of 64 predictions count as 64"
    one.per_entry = 1000.0
    assert hot.count_for([one]) == 1


def test_a_read_names_as_many_lanes_as_could_bring_some_hundred_predictions():
    hot, _ = heated(*(lane(f"c{i}") for i in range(1000)))
    for per_entry, expected in ((1.0, MOST_LANES_A_READ), (4.0, READ_PREDICTIONS // 4), (64.0, LANES_A_READ)):
        for one in hot:
            one.per_entry = per_entry
        chosen = in_turn(hot, hot.readable(None, None))
        assert len(chosen) == expected
        assert hot.count_for(chosen) == 1


def test_lanes_beyond_one_read_have_their_turn_next():
    hot, _ = heated(*(lane(f"c{i}") for i in range(LANES_A_READ + 36)))
    for one in hot:
        one.per_entry = 100.0
    first = in_turn(hot, hot.readable(None, None))
    assert len(first) == LANES_A_READ
    for one in first:
        hot.paid(one, 1, 100)
    second = {one.lane.client_id for one in in_turn(hot, hot.readable(None, None))}
    assert {one.lane.client_id for one in hot} - {one.lane.client_id for one in first} <= second


def test_idle_lanes_have_no_part_in_turns_and_all_of_them_are_looked_at():
    hot, _ = heated(*(lane(f"c{i}") for i in range(3 * MOST_LANES_A_READ)))
    [busy, *others] = hot
    for _ in range(IDLE_READS):
        hot.paid(busy, 1, 10)
        hot.empty(others)
    looked_at = set()
    for _ in range(6):
        lanes, idle = hot.choose(hot.readable(None, None))
        assert lanes == [busy]
        assert hot.count_for(lanes) > 1
        assert len(idle) <= MOST_LANES_A_READ
        looked_at |= {one.key for one in idle}
    assert looked_at == {one.key for one in others}


def test_lanes_of_both_priorities_are_told_apart():
    hot, _ = heated(lane("a"), lane("b"))
    assert not hot.mixed
    bulk, _ = hot.heat(lane("c", Priority.BULK).name)
    assert hot.mixed
    assert hot.readable(Priority.BULK, None) == [bulk]
    hot.drop(bulk)
    assert not hot.mixed


def test_a_lane_cools_after_three_seconds_of_empty_reads_and_not_before_its_first_read():
    hot, clock = heated(lane("a"))
    [one] = in_turn(hot, hot.readable(None, None))
    one.rings.append(b"1-0")
    clock.now += COOL_SECONDS + 1
    assert hot.cool() == [], "it was rung and never read"
    one.rings.clear()
    assert hot.cool() == [one]
    assert len(hot) == 0


def test_lanes_of_a_version_under_way_stay_unread():
    hot, _ = heated(lane("a"), Lane("other", 1, Priority.INTERACTIVE, "a"))
    chosen = in_turn(hot, hot.readable(None, lambda one: one.version == ("m", 1)))
    assert [one.lane.model for one in chosen] == ["other"]


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    serve_model(made.sessions, made.artifacts, slow_model(tmp_path / "slow.onnx"), "slow", batch_seconds=0.5)
    yield made
    made.close()


@pytest.fixture
def slot(queue: Queue) -> Iterator[RunningSlot]:
    with running_slot(queue) as running:
        yield running


def order_of(caller: Caller, wanted: int) -> list[int]:
    """Numbers in the order in which their answers came."""
    while sum(map(len, caller.answers.values())) < wanted:
        before = set(caller.answers)
        popped = caller.queue.client.blpop([caller.reply_to], timeout=10)
        assert popped, f"only {before} were answered"
        caller.take(popped[1])
    return list(caller.answers)


def test_interactive_predictions_are_answered_before_bulk_ones_that_came_earlier(queue: Queue, slot: RunningSlot):
    caller = Caller(queue)
    interactive, bulk = queue.lane(), queue.lane(Priority.BULK)
    both = caller.ask(interactive, (0.0, 0.0)) + caller.ask(bulk, (0.0, 0.0))
    slot.ring(interactive)
    slot.ring(bulk)
    caller.collect(both)  # both hot, predictor loaded
    caller.answers.clear()
    pipeline = queue.client.pipeline(transaction=True)
    later = [number for _ in range(3000) for number in caller.ask(bulk, (1.0, 0.0), through=pipeline)]
    first = [number for _ in range(3000) for number in caller.ask(interactive, (2.0, 0.0), through=pipeline)]
    pipeline.execute()
    order = order_of(caller, 6000)
    places = {number: place for place, number in enumerate(order)}
    middle = sorted(places[number] for number in first)[1500]
    assert middle < sorted(places[number] for number in later)[1500], "interactive is not preferred"
    assert min(places[number] for number in later) < max(places[number] for number in first), "bulk starved"


def test_a_slow_version_does_not_hold_up_a_fast_one_on_the_same_slot(queue: Queue, slot: RunningSlot):
    caller, fast, slow = Caller(queue), queue.lane(), queue.lane(model="slow")
    both = caller.ask(fast, (0.0, 1.0)) + caller.ask(slow, (0.0, 1.0))
    for one in (fast, slow):
        slot.ring(one)
    caller.collect(both)
    [long] = caller.ask(slow, (1.0, 12_000.0))
    quick = [number for i in range(20) for number in caller.ask(fast, (float(i), 0.0))]
    caller.collect(quick)
    assert long not in caller.answers
    caller.collect([long])


def test_what_a_crash_left_behind_runs_singly(queue: Queue, slot: RunningSlot):
    caller, one = Caller(queue), queue.lane()
    key = queue.keys.lane(one)
    queue.client.xgroup_create(key, "g", "0", mkstream=True)
    numbers = [number for i in range(5) for number in caller.ask(one, (float(i), 0.0))]
    queue.client.xreadgroup("g", "default:slot", {key: ">"})
    batches, instances = batches_of("double")
    slot.ring(one)
    answers = caller.collect(numbers)
    assert [json.loads(answers[n].body)["predictions"][0][0] for n in numbers] == [0.0, 2.0, 4.0, 6.0, 8.0]
    assert batches_of("double") == (batches + 5, instances + 5)


def batches_of(model: str) -> tuple[float, float]:
    """How many inferences this process made for a model, and with how many instances in all."""
    for family in metrics.BATCH_INSTANCES.labels(model, "1").collect():
        samples = {sample.name: sample.value for sample in family.samples}
        return samples["sluice_batch_instances_count"], samples["sluice_batch_instances_sum"]
    raise AssertionError("the metric has no samples")


def test_a_deadline_counts_from_the_entry_by_the_clock_of_redis():
    assert entry_ms(b"1700000000123-7") == 1_700_000_000_123


def test_a_lane_that_one_slot_cannot_empty_gets_the_versions_next_slot(queue: Queue, slot: RunningSlot):
    seconds, _ = queue.client.time()
    queue.client.zadd(queue.keys.slots("default"), {"slot": seconds + 60, "next": seconds + 60, "third": seconds + 60})
    caller, one = Caller(queue), queue.lane()
    first = caller.ask(one, (0.0, 0.0))
    slot.ring(one)
    caller.collect(first)
    pipeline = queue.client.pipeline()
    numbers = [n for _ in range(2000) for n in caller.ask(one, (1.0, 1.0), through=pipeline)]
    pipeline.execute()
    caller.collect(numbers)
    rung = [name for name in ("next", "third") if queue.client.exists(queue.keys.bell("default", name))]
    assert len(rung) == 1, "the version may use two slots at once: its own and one more"
