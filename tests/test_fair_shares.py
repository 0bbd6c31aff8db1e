"""Fair shares: weights of grants reach the workers with the rings, and a flood of one client holds up no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from auth import clients
from auth.grants import Action, GrantSpec, set_grants
from auth.rights import ClientRights
from auth.scopes import Scope
from model_store.database import transaction
from tests.conftest import RedisServer
from tests.job_kit import BODY
from tests.queue_kit import Queue, make_queue, running_slot, tell_slots, wait_until, worker_settings
from workers import jobs
from workers.bells import ring
from workers.hot_lanes import TURN_PREDICTIONS, HotLanes
from workers.lanes import Keys, Lane, Priority
from workers.pools import OnePool
from workers.redis_link import Wire
from workers.ringer import Ringer
from workers.tables import Job


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path), tmp_path)
    yield made
    made.close()


def lane_of(queue: Queue, name: str) -> Lane:
    """The lane of a new client."""
    with transaction(queue.sessions) as session:
        client, _ = clients.create(session, name, [Scope.PREDICT], b"p" * 32)
        set_grants(session, client.id, [GrantSpec("double")])
    return Lane("double", queue.version, Priority.BULK, client.id)


def lay_out(queue: Queue, lane: Lane, number: int) -> None:
    """Accept jobs of a client and put all of them into its lane."""
    drafts = [jobs.Draft(jobs.new_id(), lane, "tensorflow_serving", 1, BODY, 600) for _ in range(number)]
    with transaction(queue.sessions) as session:
        placed = jobs.accept(session, drafts, number)
    pipeline = queue.client.pipeline(transaction=False)
    for _, job in placed:
        pipeline.xadd(queue.keys.lane(lane), {"j": job})
    pipeline.execute()


def served_in_order(queue: Queue) -> list[str]:
    """Clients of the jobs that succeeded, in the order in which they began."""
    with transaction(queue.sessions, write=False) as session:
        began = select(Job.client_id).where(Job.state == "succeeded").order_by(Job.started_at, Job.number)
        return list(session.scalars(began))


def wake(queue: Queue, lane: Lane, weight: float = 1.0) -> None:
    """Ring for a lane without starting a session."""
    Wire(queue.client).execute(ring(queue.keys, "default", lane.name, "slot", weight).commands[:-1])


def test_one_job_beside_a_flood_of_a_thousand_is_served_within_two_batches(queue: Queue):
    # given a client that submitted 1,000 jobs, and another that submitted one after it
    flood, single = lane_of(queue, "flood"), lane_of(queue, "single")
    lay_out(queue, flood, 1000)
    lay_out(queue, single, 1)
    # when a slot serves both
    with running_slot(queue) as slot:
        wake(queue, flood)
        wake(queue, single)
        slot.ring(flood)
        wait_until(lambda: single.client_id in served_in_order(queue), seconds=30)
    # then no more than two batches of jobs began before the one
    assert served_in_order(queue).index(single.client_id) <= 2 * TURN_PREDICTIONS


def served(hot: HotLanes, turns: int, entry: int) -> Counter[str]:
    """What a session would read of lanes that never empty, by client."""
    found: Counter[str] = Counter()
    for _ in range(turns):
        chosen = hot.choose(list(hot))[0]
        count = hot.count_for(chosen)
        for one in chosen:
            hot.paid(one, count, count * entry)
            found[one.lane.client_id] += count
    return found


@given(
    weights=st.lists(st.floats(0.1, 100), min_size=2, max_size=8),
    entry=st.integers(1, 64),
)
@settings(max_examples=40, deadline=None)
def test_whatever_the_weights_each_client_is_served_by_its_own(weights: list[float], entry: int):
    # given lanes of clients with these weights, all of them backlogged
    hot = HotLanes(Keys("p"))
    lanes = {f"c{number}": Lane("m", 1, Priority.BULK, f"c{number}") for number in range(len(weights))}
    for client, weight in zip(lanes, weights, strict=True):
        hot.heat(lanes[client].name)[0].weight = weight
    # when a session has served them for a while
    found = served(hot, 1000, entry)
    # then nobody is further from its share than the credit and the debt that a lane may have
    total = sum(found.values()) * entry
    for client, weight in zip(lanes, weights, strict=True):
        share = total * weight / sum(weights)
        slack = 20 * TURN_PREDICTIONS + TURN_PREDICTIONS * weight + 0.05 * share
        assert abs(found[client] * entry - share) <= slack


def test_a_client_of_weight_3_gets_three_times_what_one_of_weight_1_gets(queue: Queue):
    # given two backlogged clients, one of which weighs three times as much
    heavy, light = lane_of(queue, "heavy"), lane_of(queue, "light")
    lay_out(queue, heavy, 900)
    lay_out(queue, light, 900)
    # when a slot serves both until the heavy one is done
    with running_slot(queue) as slot:
        wake(queue, light)
        slot.ring(heavy, 3.0)
        wait_until(lambda: served_in_order(queue).count(heavy.client_id) == 900, seconds=60)
    # then the other was served a third as often meanwhile
    order = served_in_order(queue)
    window = order[: len(order) - order[::-1].index(heavy.client_id)]
    assert 2.4 <= window.count(heavy.client_id) / window.count(light.client_id) <= 3.6


def test_a_ring_tells_the_weight_of_its_lane(queue: Queue):
    told: list[Lane] = []

    def weight(lane: Lane) -> float:
        told.append(lane)
        return 2.5

    ringer, lane = Ringer(queue.keys, OnePool("default"), weight=weight), lane_of(queue, "c")
    tell_slots(ringer, "s")
    new = ringer.due(lane)
    assert new is not None
    assert any(b"2.5" in command for command in new.commands)
    # and it is asked for the rings that go out only
    assert (ringer.due(lane), told) == (None, [lane])


def test_the_largest_weight_of_what_a_client_may_use_counts():
    use, look = frozenset({Action.SUBMIT}), frozenset({Action.METADATA})
    grants = (
        GrantSpec("m", version=1, actions=use, weight=2),
        GrantSpec("m", actions=use, weight=0.5),
        GrantSpec("m", actions=look, weight=50),
    )
    rights = ClientRights("c", "c", False, 0, frozenset(), {"m": grants}, (GrantSpec("n*", actions=use, weight=7),))
    assert [rights.weight("m", 1), rights.weight("m", 2), rights.weight("n1", 1), rights.weight("x", 1)] == [
        2,
        0.5,
        7,
        1,
    ]
