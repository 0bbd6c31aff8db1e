"""Bounds on running jobs: of a client that has one, no more are laid out than may run, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from auth.limits import EVERYTHING, Bounds, set_limits
from auth.rights import load_rights
from model_store.database import transaction
from tests.conftest import RedisServer
from tests.job_kit import BODY, claim, collaborators, finish
from tests.queue_kit import Queue, make_queue, worker_settings
from tests.quiet_gateway import quiet_gateway
from tests.submit_kit import MODEL, caller, jobs_of, make_available, submit
from workers import dispatch, jobs
from workers.dispatch import Dispatcher
from workers.lanes import Lane, Priority
from workers.layout import ahead_limit
from workers.running_bounds import RunningBounds
from workers.tables import Job

pytestmark = pytest.mark.long  # it waits for what takes its time


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


def dispatcher(queue: Queue, bounds: RunningBounds) -> Dispatcher:
    return Dispatcher(replace(collaborators(queue), running_bounds=lambda: bounds), "g1")


def waiting(queue: Queue, client: str, number: int, model: str = "double") -> Lane:
    """A client's jobs, none laid out."""
    lane = Lane(model, queue.version, Priority.BULK, client)
    drafts = [jobs.Draft(jobs.new_id(), lane, "tensorflow_serving", 1, BODY, 600, waits=True) for _ in range(number)]
    with transaction(queue.sessions) as session:
        assert jobs.accept(session, drafts, 100) == []
    return lane


def laid_out(queue: Queue, client: str) -> list[int]:
    with transaction(queue.sessions, write=False) as session:
        found = select(Job.number).where(Job.client_id == client, Job.dispatched_at.is_not(None)).order_by(Job.number)
        return list(session.scalars(found))


def test_no_more_are_laid_out_than_may_run_and_others_follow_as_those_end(queue: Queue):
    # given a client that may have two jobs running, and one that may have any number
    waiting(queue, queue.client_id, 5)
    waiting(queue, "free", 5)
    leader = dispatcher(queue, {(queue.client_id, EVERYTHING): 2})
    # when the dispatcher lays out, twice
    leader.turn()
    leader.turn()
    # then it keeps to the bound, also where those run
    first = laid_out(queue, queue.client_id)
    assert (len(first), len(laid_out(queue, "free"))) == (2, 5)
    claimed = claim(queue, first)
    leader.turn()
    assert laid_out(queue, queue.client_id) == first
    # and when one ends, another follows
    finish(queue, claimed[0])
    leader.turn()
    assert len(laid_out(queue, queue.client_id)) == 3
    leader.close_connections()


def test_jobs_that_are_claimed_while_others_are_laid_out_count_as_running(queue: Queue):
    # given a client that may have two jobs running, one of which lies in its lane
    waiting(queue, queue.client_id, 1)
    leader = dispatcher(queue, {(queue.client_id, EVERYTHING): 2})
    leader.turn()
    first = laid_out(queue, queue.client_id)
    waiting(queue, queue.client_id, 5)

    # when it is claimed after the room was counted, and before more is laid out
    def claim_meanwhile(_: Lane) -> float:
        claim(queue, first)
        return 1.0

    late = Dispatcher(
        replace(
            collaborators(queue), weight=claim_meanwhile, running_bounds=lambda: {(queue.client_id, EVERYTHING): 2}
        ),
        "g1",
    )
    late.turn()
    # then one more is laid out, and not two
    assert len(laid_out(queue, queue.client_id)) == 2
    leader.close_connections()
    late.close_connections()


def test_a_bound_on_a_model_is_about_that_model_alone(queue: Queue):
    waiting(queue, "c", 3)
    waiting(queue, "c", 3, model="other")
    leader = dispatcher(queue, {("c", "double"): 1})
    leader.turn()
    assert len(laid_out(queue, "c")) == 1 + 3
    leader.close_connections()


def test_lanes_at_a_bound_hide_no_others(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    # given more lanes at their bound than a turn looks at, and then another
    monkeypatch.setattr(dispatch, "LANES_A_TURN", 2)
    for model in ("a", "b", "c"):
        waiting(queue, "bounded", 2, model=model)
    waiting(queue, "free", 1)
    leader = dispatcher(queue, {("bounded", EVERYTHING): 1})
    # when a few turns have passed
    for _ in range(3):
        leader.turn()
    # then that one has been looked at
    assert len(laid_out(queue, "free")) == 1
    assert len(laid_out(queue, "bounded")) == 1
    leader.close_connections()


def test_a_gateway_lays_out_nothing_of_a_client_with_a_bound(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        make_available(gateway.parts.sessions)
        bounded = caller(gateway, "bounded", MODEL, bounds=Bounds(running_jobs=1))
        free = caller(gateway, "free")
        for headers in (bounded, free):
            assert submit(gateway.http, headers).status_code == 202
        assert [job.dispatched_at is not None for job in jobs_of(gateway.parts.sessions)] == [False, True]


def test_bounds_are_part_of_the_picture_of_rights(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        client_id, _ = gateway.client("bounded")
        with transaction(gateway.parts.sessions) as session:
            limits = {EVERYTHING: Bounds(running_jobs=4), "m": Bounds(running_jobs=1), "n": Bounds(queued_jobs=1)}
            set_limits(session, client_id, limits)
            assert load_rights(session).running_bounds == {(client_id, EVERYTHING): 4, (client_id, "m"): 1}


def test_a_lane_of_more_weight_has_more_laid_out_ahead():
    assert ahead_limit(128, 0.1) < ahead_limit(128) < ahead_limit(128, 100)
    # and always a batch, and never more than is looked through
    assert ahead_limit(128, 0.1) >= 128
    assert ahead_limit(128, 100) < 1000
