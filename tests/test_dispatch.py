"""Laying out jobs, what is found lost, and jobs run by a session; with a real Redis on both databases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from model_store.database import now_ms, transaction
from tests.conftest import RedisServer
from tests.job_kit import BODY, accept, claim, counts, make_dispatcher, numbers_of, state
from tests.queue_kit import Queue, make_queue, running_slot, wait_until, worker_settings
from workers import jobs, lane_counts, layout, roles
from workers.lanes import Priority
from workers.tables import Job, JobResult, LaneCount


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


def test_no_more_than_the_limit_lies_in_a_lane_and_the_rest_follows_in_order(queue: Queue):
    numbers = accept(queue, 5, ahead_limit=2)
    assert counts(queue) == (5, 3)
    lane = queue.lane(Priority.BULK).name
    claim(queue, numbers[:2])
    with transaction(queue.sessions) as session:
        assert layout.lay_out(session, lane, 2) == numbers[2:4]
    with transaction(queue.sessions) as session:
        assert layout.lay_out(session, lane, 2) == []
    # None is laid out ahead of an older one that still waits, although there would be room.
    claim(queue, numbers[2:4])
    accept(queue, 1, ahead_limit=2)
    assert counts(queue) == (2, 2)


def test_one_process_of_many_leads(queue: Queue):
    with transaction(queue.sessions) as session:
        assert roles.hold(session, "role", "one", 60)
        assert not roles.hold(session, "role", "two", 60)
        assert roles.hold(session, "role", "one", 0)
    time.sleep(0.01)
    with transaction(queue.sessions) as session:
        assert roles.hold(session, "role", "two", 60)


def test_jobs_laid_out_are_run_and_their_results_kept(queue: Queue):
    numbers = accept(queue, 30, ahead_limit=0)
    dispatcher = make_dispatcher(queue)
    lane = queue.lane(Priority.BULK)
    with running_slot(queue) as slot:
        until = time.monotonic() + 15
        while time.monotonic() < until and any(state(queue.sessions, number) != "succeeded" for number in numbers):
            dispatcher.turn()
            slot.ring(lane)
            time.sleep(0.05)
    assert {state(queue.sessions, number) for number in numbers} == {"succeeded"}
    with transaction(queue.sessions, write=False) as session:
        assert set(session.scalars(select(JobResult.body))) == {b'{"predictions":[[2.0,4.0]]}'}
    dispatcher.close_connections()


def run_jobs(queue: Queue, numbers: list[int]) -> None:
    """Lay jobs out in one read and let a session run them until each is final."""
    lane = queue.lane(Priority.BULK)
    for number in numbers:
        queue.client.xadd(queue.keys.lane(lane), {"j": number})
    with running_slot(queue) as slot:
        slot.ring(lane)
        wait_until(lambda: all(state(queue.sessions, number) in jobs.FINAL for number in numbers))


def accept_stored(queue: Queue, body: bytes | None) -> tuple[int, str]:
    """A job whose input should lie in the store; where `body` is None it does not."""
    draft = jobs.Draft(jobs.new_id(), queue.lane(Priority.BULK), "tensorflow_serving", 1, None, 60)
    if body is not None:
        queue.artifacts.put_payload(jobs.input_name(draft.id), body)
    with transaction(queue.sessions) as session:
        jobs.accept(session, [draft], 100)
        return numbers_of(session, [draft])[0], draft.id


def test_a_job_whose_input_is_gone_spoils_no_other_job_of_its_batch(queue: Queue):
    (gone, _), (stored, _) = accept_stored(queue, None), accept_stored(queue, BODY)
    run_jobs(queue, [gone, stored])
    assert (state(queue.sessions, gone), state(queue.sessions, stored)) == ("failed", "succeeded")


def test_a_job_that_fails_for_no_foreseen_reason_ends_after_its_attempts(queue: Queue):
    [number] = accept(queue)
    stored, job_id = accept_stored(queue, None)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number == stored).values(max_attempts=1))
    # What lies in the place of the input cannot be read: an error that nothing expects.
    (queue.artifacts.root / "payloads" / jobs.input_name(job_id)).mkdir(parents=True)
    run_jobs(queue, [stored, number])
    assert (state(queue.sessions, stored), state(queue.sessions, number)) == ("failed", "succeeded")


def test_jobs_of_a_wiped_redis_are_found_lost_and_laid_out_again(queue: Queue):
    [number] = accept(queue)
    lane = queue.lane(Priority.BULK)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).values(dispatched_at=now_ms() - 10_000))
    dispatcher = make_dispatcher(queue)
    dispatcher.turn()  # finds it lost
    assert counts(queue) == (1, 1)
    dispatcher.turn()  # lays it out
    assert counts(queue) == (1, 0)
    assert queue.client.xlen(queue.keys.lane(lane)) == 1
    dispatcher.close_connections()
    assert state(queue.sessions, number) == "queued"


def test_a_job_whose_entry_was_overtaken_by_younger_ones_is_lost(queue: Queue):
    old, young = accept(queue, 2)
    lane = queue.lane(Priority.BULK)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number == old).values(dispatched_at=now_ms() - 10_000))
    queue.client.xadd(queue.keys.lane(lane), {"j": young})
    dispatcher = make_dispatcher(queue)
    dispatcher.turn()
    dispatcher.turn()
    entries = [int(fields[b"j"]) for _, fields in queue.client.xrange(queue.keys.lane(lane))]
    assert entries == [young, old]
    dispatcher.close_connections()


def test_idle_lanes_are_forgotten_and_busy_ones_kept(queue: Queue):
    accept(queue)
    with transaction(queue.sessions) as session:
        session.add(LaneCount(lane="m:1:bulk:c", client_id="c", model="m", version=1, queued=0, updated_at=0))
        session.flush()
        lane_counts.forget_idle(session)
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(LaneCount.lane)).all() == [queue.lane(Priority.BULK).name]
