"""Estimates: what runs before a job, by weights and priorities, as a property and against a simulation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.lanes import Lane, Priority
from workers.queue_estimates import LaneLoad, Rate, VersionQueue, guessed_rate, place_between

loads = st.builds(LaneLoad, st.integers(1, 500), st.floats(0.1, 100))
priorities = st.sampled_from(list(Priority))


@st.composite
def queues(draw: st.DrawFn) -> dict[Lane, LaneLoad]:
    names = draw(st.lists(st.tuples(st.integers(0, 9), priorities), min_size=1, max_size=12, unique=True))
    return {Lane("m", 1, priority, f"c{number}"): draw(loads) for number, priority in names}


@given(queues(), st.data())
def test_nobody_waits_for_more_than_there_is_or_less_than_its_own(lanes: dict[Lane, LaneLoad], data: st.DataObject):
    queue = VersionQueue(lanes)
    lane = data.draw(st.sampled_from(list(lanes)))
    own = data.draw(st.integers(0, lanes[lane].queued - 1))
    ahead = queue.ahead(lane, own, lanes[lane].weight)
    rest = sum(load.queued for other, load in lanes.items() if other != lane)
    assert ahead.own == own
    assert -1e-6 <= ahead.others <= rest + 1e-6


@given(queues(), st.data())
def test_a_later_job_waits_for_more_and_a_heavier_client_for_less(lanes: dict[Lane, LaneLoad], data: st.DataObject):
    queue = VersionQueue(lanes)
    lane = data.draw(st.sampled_from(list(lanes)))
    own, weight = data.draw(st.integers(0, 500)), lanes[lane].weight
    here = queue.ahead(lane, own, weight).jobs
    assert queue.ahead(lane, own + 1, weight).jobs >= here
    assert queue.ahead(lane, own, weight * 2).jobs <= here + 1e-6


@given(st.lists(loads, min_size=2, max_size=6), st.data())
def test_it_is_what_turns_by_weight_bring(lanes: list[LaneLoad], data: st.DataObject):
    # given lanes of one priority, and a job in the midst of the first
    named = {Lane("m", 1, Priority.BULK, f"c{number}"): load for number, load in enumerate(lanes)}
    first, own = next(iter(named)), data.draw(st.integers(0, lanes[0].queued - 1))
    ahead = VersionQueue(named).ahead(first, own, lanes[0].weight)
    # then what the others gave meanwhile is what turns bring: of each its weight, until it is empty
    turns = own / lanes[0].weight
    expected = sum(min(load.queued, load.weight * turns) for load in lanes[1:])
    assert ahead.others == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_bulk_waits_for_nine_of_ten_turns_of_interactive_work_and_no_longer_than_that_lasts():
    interactive, bulk = (Lane("m", 1, priority, "c") for priority in Priority)
    queue = VersionQueue({interactive: LaneLoad(90, 1.0), bulk: LaneLoad(100, 1.0)})
    assert queue.ahead(bulk, 5, 1.0).others == pytest.approx(45)
    assert queue.ahead(bulk, 50, 1.0).others == pytest.approx(90)
    assert queue.ahead(interactive, 90, 1.0).others == pytest.approx(10)


def test_a_rate_forgets_its_guess_and_follows_what_is_measured():
    rate = Rate(guess=1000.0)
    rate.observe(3, 0.5)
    assert rate.jobs_a_second == pytest.approx(1000), "of a first measurement nobody knows how long it took"
    for _ in range(2):
        rate.observe(50, 0.5)
    assert rate.jobs_a_second == pytest.approx(100)
    # One measurement that is far off may be an accident; small changes are followed slowly.
    rate.observe(500, 0.5)
    assert 100 < rate.jobs_a_second < 1000
    for _ in range(40):
        rate.observe(20, 0.5)
        rate.observe(21, 0.5)
    assert rate.jobs_a_second == pytest.approx(41, rel=0.03)


def test_batches_that_leave_at_once_are_counted_over_the_time_between_them():
    rate = Rate(guess=5.0)
    for _ in range(10):
        for _ in range(9):
            rate.observe(0, 0.5)
            assert rate.jobs_a_second > 4.0
        rate.observe(64, 0.5)
    assert rate.jobs_a_second == pytest.approx(12.8, rel=0.15)
    # and where nothing leaves any more, the rate falls
    for _ in range(200):
        rate.observe(0, 0.5)
    assert rate.jobs_a_second < 2


def test_a_rate_is_guessed_from_the_measured_batch_and_grows_with_slots():
    assert guessed_rate(0.64, 64, 1) == pytest.approx(97, rel=0.05)
    assert guessed_rate(0.64, 64, 4) == pytest.approx(4 * guessed_rate(0.64, 64, 1))
    assert guessed_rate(None, 1, 0) > 0


@given(st.integers(1, 10**9), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6))
def test_a_place_in_the_midst_lies_in_the_lane(first: int, span: int, offset: int, jobs: int):
    place = place_between(first + min(offset, span), first, first + span, jobs)
    assert 0 <= place <= jobs
