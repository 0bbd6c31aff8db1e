"""The asynchronous job: every legal move, the fence, leases."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from auth import clients
from auth.standing import Standing
from model_store.database import now_ms, transaction
from tests.conftest import RedisServer
from tests.job_kit import accept, claim, collaborators, counts, end_back_off, end_lease, finish, recover, state
from tests.queue_kit import Queue, make_queue, worker_settings
from workers import jobs, lane_counts, layout
from workers.lanes import Lane, Priority
from workers.sweep import Sweep
from workers.tables import Job, JobInput, JobResult, LaneCount


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


def test_a_job_is_claimed_once_and_finished_once(queue: Queue):
    [number] = accept(queue)
    [claimed] = claim(queue, [number])
    assert claim(queue, [number]) == [], "a duplicate delivery claims nothing"
    assert finish(queue, claimed, b"first") == [number]
    assert finish(queue, claimed, b"second") == [], "a final state never changes"
    assert state(queue.sessions, number) == "succeeded"
    assert counts(queue) == (0, 0)


def test_a_worker_that_wakes_up_after_its_lease_cannot_write(queue: Queue):
    [number] = accept(queue)
    [stale] = claim(queue, [number], "default:stale")
    end_lease(queue, number)
    assert recover(queue) == (1, 0)
    end_back_off(queue)
    [current] = claim(queue, [number], "default:other")
    assert finish(queue, stale, b"late") == []
    assert finish(queue, current, b"right") == [number]
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(JobResult.body)).one() == b"right"


def test_three_lost_attempts_make_a_dead_letter(queue: Queue):
    [number] = accept(queue)
    for _ in range(jobs.MOST_ATTEMPTS):
        assert claim(queue, [number])
        end_lease(queue, number)
        recover(queue)
        end_back_off(queue)
    assert state(queue.sessions, number) == "failed"
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(Job.error_code)).one() == "worker_crashed"
    assert counts(queue) == (0, 0)


def test_a_lease_that_ran_out_under_a_beating_heart_is_no_attempt(queue: Queue):
    [number] = accept(queue)
    for _ in range(5):
        assert claim(queue, [number])
        end_lease(queue, number)
        assert recover(queue, alive=True) == (1, 0)
        end_back_off(queue)
    assert state(queue.sessions, number) == "queued"


def test_a_job_put_back_waits_longer_after_each_attempt(queue: Queue):
    [number] = accept(queue)
    waits = []
    for _ in range(2):
        claim(queue, [number])
        end_lease(queue, number)
        recover(queue)
        with transaction(queue.sessions, write=False) as session:
            waits.append(session.scalars(select(Job.not_before - now_ms())).one())
        end_back_off(queue)
    assert 0 < waits[0] <= 1000 < waits[1] <= 4000
    assert counts(queue) == (1, 1)


def test_a_canceled_job_is_not_claimed_and_a_running_ones_result_is_dropped(queue: Queue):
    waiting, running = accept(queue, 2)
    [claimed] = claim(queue, [running])
    for number in (waiting, running):
        with transaction(queue.sessions) as session:
            job = session.get(Job, number)
            assert job is not None
            assert jobs.cancel(session, job)
    assert claim(queue, [waiting]) == []
    assert finish(queue, claimed) == []
    assert (state(queue.sessions, waiting), state(queue.sessions, running)) == ("canceled", "canceled")
    assert counts(queue) == (0, 0)


def test_a_final_job_is_not_canceled(queue: Queue):
    [number] = accept(queue)
    [claimed] = claim(queue, [number])
    finish(queue, claimed)
    with transaction(queue.sessions) as session:
        job = session.get(Job, number)
        assert job is not None
        assert not jobs.cancel(session, job)
    assert state(queue.sessions, number) == "succeeded"


def test_a_job_that_was_claimed_since_it_was_looked_up_is_canceled_all_the_same(queue: Queue):
    [number] = accept(queue)
    with transaction(queue.sessions, write=False) as session:
        seen = session.get(Job, number)
    [claimed] = claim(queue, [number])
    with transaction(queue.sessions) as session:
        session.add(seen)
        assert jobs.cancel(session, seen)
    assert finish(queue, claimed) == []
    assert state(queue.sessions, number) == "canceled"
    assert counts(queue) == (0, 0)


def test_a_job_past_its_deadline_expires_without_running(queue: Queue):
    [number] = accept(queue, seconds=0.0)
    time.sleep(0.01)
    assert claim(queue, [number]) == []
    with transaction(queue.sessions) as session:
        assert len(jobs.expire(session)) == 1
    assert state(queue.sessions, number) == "expired"
    assert counts(queue) == (0, 0)


def test_a_job_whose_client_lost_its_right_is_canceled_when_claimed(queue: Queue):
    [number] = accept(queue)
    with transaction(queue.sessions) as session:
        clients.set_disabled(session, queue.client_id, True)
    assert claim(queue, [number]) == []
    assert state(queue.sessions, number) == "canceled"
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(Job.error_code)).one() == "client_disabled"


def test_leases_are_renewed_for_the_holder_only(queue: Queue):
    [number] = accept(queue)
    claim(queue, [number], "default:holder")
    end_lease(queue, number)
    with transaction(queue.sessions) as session:
        jobs.renew(session, [number], "default:stranger")
    with transaction(queue.sessions) as session:
        jobs.renew(session, [number], "default:holder")
    assert recover(queue) == (0, 0)


def test_a_forgotten_job_is_gone_with_its_input_and_its_result(queue: Queue):
    [number] = accept(queue)
    [claimed] = claim(queue, [number])
    finish(queue, claimed)
    with transaction(queue.sessions) as session:
        jobs.forget(session, [number])
    with transaction(queue.sessions, write=False) as session:
        for column in (Job.id, JobInput.job, JobResult.job):
            assert session.scalars(select(column)).all() == []


@pytest.mark.parametrize(("beating", "attempts"), [("old", 0), ("new", 1)])
def test_a_lease_counts_as_an_attempt_unless_the_very_session_that_held_it_beats(
    queue: Queue, beating: str, attempts: int
):
    [number] = accept(queue)
    claim(queue, [number], "default:w:old")
    end_lease(queue, number)
    queue.client.set(queue.keys.beat("default:w"), beating)
    Sweep(collaborators(queue)).run()
    with transaction(queue.sessions, write=False) as session:
        assert session.execute(select(Job.state, Job.attempt)).one() == ("queued", attempts)


def test_a_number_is_never_given_again(queue: Queue):
    [number] = accept(queue)
    [running] = claim(queue, [number])
    with transaction(queue.sessions) as session:
        jobs.cancel(session, session.get_one(Job, number))
        jobs.forget(session, [number])
    [another] = accept(queue)
    [claimed] = claim(queue, [another])
    assert another > number
    assert finish(queue, running, b"the deleted job's answer") == []
    assert finish(queue, claimed, b"its own answer") == [another]
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(JobResult.body)).one() == b"its own answer"


def test_a_job_that_is_put_back_into_a_forgotten_lane_is_laid_out_again(queue: Queue):
    [number] = accept(queue)
    claim(queue, [number])
    end_lease(queue, number)
    with transaction(queue.sessions) as session:
        session.execute(update(LaneCount).values(updated_at=0))
        lane_counts.forget_idle(session)
    assert recover(queue) == (1, 0)
    assert counts(queue) == (1, 1)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).values(not_before=0))
        assert layout.lay_out(session, queue.lane(Priority.BULK).name, 10) == [number]


def test_an_entry_brings_no_job_of_another_version(queue: Queue):
    [number] = accept(queue)
    with transaction(queue.sessions) as session:
        assert jobs.claim(session, [number], ("other", 1), "default:w", Standing()) == []
    assert state(queue.sessions, number) == "queued"


def test_jobs_are_numbered_in_the_order_in_which_they_were_accepted(queue: Queue):
    first, second = accept(queue, 3), accept(queue, 2)
    assert sorted(first + second) == first + second
    assert len({*first, *second}) == 5


def test_a_lane_has_one_name_and_is_read_back_from_it():
    lane = Lane("mnist", 3, Priority.BULK, "cli_x")
    assert Lane.parse(lane.name) == lane


def test_no_id_begins_as_an_option_of_a_command_line_does():
    assert not [found for found in (jobs.new_id() for _ in range(5000)) if found.startswith("-")]
