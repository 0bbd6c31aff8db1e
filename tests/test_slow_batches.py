"""Versions whose batches run in threads: what is read and answered while one runs; with a real Redis and a session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.queue_kit import (
    Caller,
    Queue,
    RunningSlot,
    in_hand,
    make_queue,
    running_slot,
    serve_model,
    slow_model,
    wait_until,
    worker_settings,
)
from workers.lanes import Lane

# Rounds of the slow model: about a second.
LONG = 10_000.0
# Eight instances take as long together as they take singly: nothing is lost by reading early.
FLAT = {"batching": {"max_batch": 8, "pad_to": [], "curve": [
    {"instances": 1, "ms": 10.0, "instances_per_second": 100.0},
    {"instances": 8, "ms": 80.0, "instances_per_second": 100.0},
]}}  # fmt: skip


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    settings = worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path)
    made = make_queue(settings, tmp_path)
    serve_model(made.sessions, made.artifacts, slow_model(tmp_path / "a.onnx"), "flat", batch_seconds=0.08, report=FLAT)
    serve_model(made.sessions, made.artifacts, slow_model(tmp_path / "b.onnx"), "steep", batch_seconds=0.08)
    yield made
    made.close()


@pytest.fixture
def slot(queue: Queue) -> Iterator[RunningSlot]:
    with running_slot(queue) as running:
        yield running


def warm(queue: Queue, slot: RunningSlot, lane: Lane) -> Caller:
    caller = Caller(queue)
    numbers = caller.ask(lane, (1.0, 1.0))
    slot.ring(lane)
    caller.collect(numbers)
    wait_until(lambda: in_hand(queue, lane) == 0)
    return caller


def doubled(caller: Caller, number: int) -> object:
    return json.loads(caller.answers[number][0].body)["predictions"]


def test_the_next_requests_are_read_while_a_batch_runs_where_batches_gain_nothing(queue: Queue, slot: RunningSlot):
    lane = queue.lane(model="flat")
    caller = warm(queue, slot, lane)

    long = caller.ask(lane, (3.0, LONG))
    wait_until(lambda: in_hand(queue, lane) == 1)
    short = caller.ask(lane, (4.0, 1.0))
    wait_until(lambda: in_hand(queue, lane) == 2)

    assert not caller.answers.keys() & {*long, *short}
    caller.collect([*long, *short], 30)
    assert doubled(caller, long[0]) == [[6.0, 2 * LONG]]
    assert doubled(caller, short[0]) == [[8.0, 2.0]]
    assert len(caller.answers[short[0]]) == 1


def test_requests_wait_unread_for_the_batch_that_they_will_share_where_batches_gain(queue: Queue, slot: RunningSlot):
    lane = queue.lane(model="steep")
    caller = warm(queue, slot, lane)

    long = caller.ask(lane, (3.0, LONG))
    wait_until(lambda: in_hand(queue, lane) == 1)
    short = [number for _ in range(3) for number in caller.ask(lane, (4.0, 1.0))]

    assert in_hand(queue, lane) == 1
    caller.collect([*long, *short], 30)
    assert [doubled(caller, number) for number in short] == [[[8.0, 2.0]]] * 3


def test_whoever_is_answered_first_does_not_wait_for_the_batches_after(queue: Queue, slot: RunningSlot):
    lane = queue.lane(model="steep")
    caller = warm(queue, slot, lane)

    numbers = caller.ask(lane, *[(float(row), 1.0) for row in range(8)], (9.0, LONG))
    first, last = numbers[:8], numbers[8]
    caller.collect(first)

    assert last not in caller.answers
    caller.collect([last], 30)
    assert [doubled(caller, number) for number in first] == [[[2.0 * row, 2.0]] for row in range(8)]
    assert doubled(caller, last) == [[18.0, 2 * LONG]]


def test_what_is_read_ahead_leaves_threads_for_other_versions(queue: Queue, slot: RunningSlot, tmp_path: Path):
    lanes = [queue.lane(model="flat")]
    for number in range(4):
        serve_model(
            queue.sessions, queue.artifacts, slow_model(tmp_path / f"{number}.onnx"), f"flat{number}",
            batch_seconds=0.08, report=FLAT,
        )  # fmt: skip
        lanes.append(queue.lane(model=f"flat{number}"))
    callers = [warm(queue, slot, lane) for lane in lanes]
    # Loaded before, so that the first of the slow ones cannot end meanwhile.
    other = warm(queue, slot, queue.lane(model="steep"))
    long = [(caller, lane, caller.ask(lane, (1.0, 2 * LONG))) for caller, lane in zip(callers, lanes, strict=True)]
    wait_until(lambda: all(in_hand(queue, lane) for lane in lanes))
    for caller, lane, numbers in long:
        numbers += caller.ask(lane, (1.0, 1.0))
    [quick] = other.ask(queue.lane(model="steep"), (3.0, 1.0))
    slot.ring(queue.lane(model="steep"))
    other.collect([quick])
    assert [queue.client.llen(caller.reply_to) for caller in callers] == [0] * len(callers), "it waited for a slow one"
    for caller, _, numbers in long:
        caller.collect(numbers)
