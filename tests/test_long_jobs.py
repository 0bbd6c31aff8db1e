"""Jobs of many inferences: how far they are can be seen, and a canceled one stops between two of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from auth.grants import Action, GrantSpec, set_grants
from model_store.database import transaction
from tests.conftest import RedisServer
from tests.job_kit import state
from tests.queue_kit import (
    Queue,
    RunningSlot,
    make_queue,
    running_slot,
    serve_model,
    slow_model,
    wait_until,
    worker_settings,
)
from workers import jobs
from workers.drafts import Draft, new_id
from workers.lanes import JOB_FIELD, Lane, Priority
from workers.payloads import input_name
from workers.tables import Job, JobResult

# Rounds of the slow model: some 50 ms for each of a thousand inferences.
ROUNDS = 500.0
ROWS = 8000


@pytest.fixture
def queue(redis_server: RedisServer, tmp_path: Path) -> Iterator[Queue]:
    settings = worker_settings(redis_server.url, f"sqlite:///{tmp_path / 'sluice.db'}", tmp_path)
    made = make_queue(settings, tmp_path)
    serve_model(made.sessions, made.artifacts, slow_model(tmp_path / "slow.onnx"), "slow", batch_seconds=0.05)
    with transaction(made.sessions) as session:
        set_grants(session, made.client_id, [GrantSpec("slow", actions=frozenset(Action))])
    yield made
    made.close()


@pytest.fixture
def slot(queue: Queue) -> Iterator[RunningSlot]:
    with running_slot(queue) as running:
        yield running


def submit(queue: Queue, lane: Lane, rows: int, rounds: float) -> int:
    body = json.dumps({"instances": [[1.0, rounds]] * rows}).encode()
    draft = Draft(new_id(), lane, "tensorflow_serving", rows, None, 600)
    queue.artifacts.put_payload(input_name(draft.id), body)
    with transaction(queue.sessions) as session:
        [(_, number)] = jobs.accept(session, [draft], 100)
    queue.client.xadd(queue.keys.lane(lane), {JOB_FIELD: number})
    return number


def done(queue: Queue, number: int) -> int:
    with transaction(queue.sessions, write=False) as session:
        return session.scalars(select(Job.done).where(Job.number == number)).one()


def test_a_canceled_job_stops_between_two_inferences_and_leaves_its_place_to_others(queue: Queue, slot: RunningSlot):
    lane = queue.lane(Priority.BULK, model="slow")
    long, short = submit(queue, lane, ROWS, ROUNDS), submit(queue, lane, 3, 1.0)
    slot.ring(lane)
    # What runs says how far it is.
    wait_until(lambda: 0 < done(queue, long) < ROWS, 30)

    with transaction(queue.sessions) as session:
        assert jobs.cancel(session, session.get_one(Job, long))
    after = submit(queue, lane, 2, 1.0)
    slot.ring(lane)

    wait_until(lambda: state(queue.sessions, after) == "succeeded", 20)
    assert state(queue.sessions, short) == "succeeded"
    assert state(queue.sessions, long) == "canceled"
    assert done(queue, after) == 2
    assert done(queue, long) < ROWS / 2
    with transaction(queue.sessions, write=False) as session:
        assert long not in session.scalars(select(JobResult.job)).all()
