"""A slot loads a version before it takes anything from its lanes, and one slot at a time does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.queue_kit import Caller, Queue, RunningSlot, in_hand, make_queue, running_slot, wait_until, worker_settings
from workers.batches import Loaded
from workers.lanes import Lane
from workers.lookout import UseCount
from workers.predictor_cache import PredictorCache


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    yield made
    made.close()


class SlowSlot:
    """A slot in a process of its own, as far as predictors go, whose loads wait until its gate is opened."""

    def __init__(self, queue: Queue, name: str) -> None:
        child = queue.child()
        self.gate, self.begun = threading.Event(), threading.Event()

        def load(model: str, version: int) -> Loaded:
            self.begun.set()
            assert self.gate.wait(20)
            return child.cache.get(model, version)

        self.cache = PredictorCache[Loaded](2**30, load)
        self.slot = RunningSlot(queue, name, replace(child, cache=self.cache, uses=UseCount(self.cache)))


@contextlib.contextmanager
def slow_slot(queue: Queue, name: str) -> Iterator[SlowSlot]:
    made = SlowSlot(queue, name)
    try:
        yield made
    finally:
        made.gate.set()
        made.slot.stop()


def heard(queue: Queue, slot: RunningSlot) -> None:
    """Wait until a slot has dealt with all that was rung."""
    bell = queue.keys.bell(queue.settings.pool, slot.name)
    wait_until(lambda: not queue.client.xlen(bell), message="a ring was not heard")


def test_a_slot_takes_nothing_from_a_lane_before_the_version_is_loaded_so_that_another_may(queue: Queue):
    lane, caller = queue.lane(), Caller(queue)
    with slow_slot(queue, "slow") as slow, running_slot(queue, "ready") as ready:
        # given a slot that loads for somebody who waits
        numbers = caller.ask(lane, (1.0, 2.0))
        slow.slot.ring(lane)
        assert slow.begun.wait(10)
        assert in_hand(queue, lane) == 0
        # when one that has the version becomes free
        ready.child.cache.get("double", queue.version)
        ready.ring(lane)
        # then that answers, while the other still loads
        assert caller.collect(numbers)[numbers[0]].status == 200
        assert slow.cache.loaded() == []


def test_a_slot_that_is_rung_for_nothing_leaves_what_comes_later_to_others(queue: Queue):
    lane, caller = queue.lane(), Caller(queue)
    with slow_slot(queue, "slow") as slow, running_slot(queue, "ready") as ready:
        # given a lane that another slot has emptied
        numbers = caller.ask(lane, (1.0, 2.0))
        ready.ring(lane)
        caller.collect(numbers)
        slow.slot.ring(lane)
        heard(queue, slow.slot)
        ready.stop()
        # when something comes later
        numbers = caller.ask(lane, (1.0, 2.0))
        slow.slot.ring(queue.lane(client_id="somebody"))
        heard(queue, slow.slot)
        # then it waits for who has the version, or for the next ring
        assert (in_hand(queue, lane), slow.begun.is_set()) == (0, False)
        slow.gate.set()
        slow.slot.ring(lane)
        assert caller.collect(numbers)[numbers[0]].status == 200


def test_of_the_slots_that_are_rung_while_one_loads_none_loads_too(queue: Queue):
    lane, caller = queue.lane(), Caller(queue)
    with slow_slot(queue, "first") as first, slow_slot(queue, "second") as second:
        numbers = caller.ask(lane, (1.0, 2.0))
        first.slot.ring(lane)
        assert first.begun.wait(10)
        numbers += caller.ask(lane, (3.0, 4.0))
        second.slot.ring(lane)
        heard(queue, second.slot)
        first.gate.set()
        assert {answer.status for answer in caller.collect(numbers).values()} == {200}
        assert not second.begun.is_set()
        assert not queue.client.exists(queue.keys.loading(queue.settings.pool, "double", queue.version))


def test_a_load_that_a_dead_slot_began_keeps_nobody_from_it_for_long(queue: Queue):
    lane, caller = queue.lane(), Caller(queue)
    turn = queue.keys.loading(queue.settings.pool, "double", queue.version)
    queue.client.set(turn, "gone", px=3000)
    with running_slot(queue) as slot:
        numbers = caller.ask(lane, (1.0, 2.0))
        slot.ring(lane)
        heard(queue, slot)
        assert slot.child.cache.loaded() == []
        wait_until(lambda: not queue.client.exists(turn))
        slot.ring(lane)  # who waits, rings
        assert caller.collect(numbers)[numbers[0]].status == 200


def test_a_version_that_cannot_be_loaded_is_answered_with_the_reason(queue: Queue):
    lane, caller = Lane("double", 99, queue.lane().priority, queue.client_id), Caller(queue)
    with running_slot(queue) as slot:
        numbers = caller.ask(lane, (1.0, 2.0))
        slot.ring(lane)
        assert caller.collect(numbers)[numbers[0]].status == 404


def test_a_first_load_counts_as_the_miss_of_the_use_that_it_was_for(queue: Queue):
    lane, caller = queue.lane(), Caller(queue)
    with running_slot(queue) as slot:
        for _ in range(3):
            numbers = caller.ask(lane, (1.0, 2.0))
            slot.ring(lane)
            caller.collect(numbers)
        figures = slot.child.cache.figures()
        assert (figures.misses, figures.hits) == (1, 2)
