"""The asynchronous job: every legal move, the fence, leases, laying out, and what is found lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from auth import clients
from model_store.database import Sessions, now_ms, transaction
from tests.conftest import RedisServer
from tests.queue_kit import Queue, make_queue, running_slot, wait_until, worker_settings
from workers import dispatch, jobs, lane_counts
from workers.broker import broker
from workers.lanes import Lane, Priority
from workers.publisher import Publisher
from workers.redis_link import connect
from workers.tables import Job, LaneCount

BODY = b'{"instances": [[1.0, 2.0]]}'


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


def accept(queue: Queue, number: int = 1, *, ahead_limit: int = 100, seconds: float = 60) -> list[str]:
    lane = queue.lane(Priority.BULK)
    drafts = [jobs.Draft(jobs.new_id(), lane, "tensorflow_serving", 1, BODY, seconds) for _ in range(number)]
    with transaction(queue.sessions) as session:
        jobs.accept(session, drafts, ahead_limit)
    return [draft.id for draft in drafts]


def state(sessions: Sessions, job_id: str) -> str:
    with transaction(sessions, write=False) as session:
        return session.scalars(select(Job.state).where(Job.id == job_id)).one()


def claim(queue: Queue, ids: list[str], worker: str = "default:w") -> list[jobs.Claimed]:
    with transaction(queue.sessions) as session:
        return jobs.claim(session, ids, worker)


def finish(queue: Queue, claimed: jobs.Claimed, result: bytes = b"{}") -> list[str]:
    with transaction(queue.sessions) as session:
        return jobs.finish(session, [jobs.Ending(claimed.id, claimed.fence, result)])


def end_lease(queue: Queue, job_id: str) -> None:
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=now_ms() - 1))


def recover(queue: Queue, *, alive: bool = False) -> tuple[int, int]:
    with transaction(queue.sessions) as session:
        return jobs.recover(session, lambda _: alive)


def counts(queue: Queue) -> tuple[int, int]:
    with transaction(queue.sessions, write=False) as session:
        row = session.get(LaneCount, queue.lane(Priority.BULK).name)
        return (row.queued, row.waiting) if row else (0, 0)


def test_a_job_is_claimed_once_and_finished_once(queue: Queue):
    [job_id] = accept(queue)
    [claimed] = claim(queue, [job_id])
    assert claim(queue, [job_id]) == [], "a duplicate delivery claims nothing"
    assert finish(queue, claimed, b"first") == [job_id]
    assert finish(queue, claimed, b"second") == [], "a final state never changes"
    assert state(queue.sessions, job_id) == "succeeded"
    assert counts(queue) == (0, 0)


def test_a_worker_that_wakes_up_after_its_lease_cannot_write(queue: Queue):
    [job_id] = accept(queue)
    [stale] = claim(queue, [job_id], "default:stale")
    end_lease(queue, job_id)
    assert recover(queue) == (1, 0)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).values(not_before=0))
    [current] = claim(queue, [job_id], "default:other")
    assert finish(queue, stale, b"late") == []
    assert finish(queue, current, b"right") == [job_id]
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(Job.result)).one() == b"right"


def test_three_lost_attempts_make_a_dead_letter(queue: Queue):
    [job_id] = accept(queue)
    for _ in range(jobs.MOST_ATTEMPTS):
        assert claim(queue, [job_id])
        end_lease(queue, job_id)
        recover(queue)
    assert state(queue.sessions, job_id) == "failed"
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(Job.error_code)).one() == "worker_crashed"
    assert counts(queue) == (0, 0)


def test_a_lease_that_ran_out_under_a_beating_heart_is_no_attempt(queue: Queue):
    [job_id] = accept(queue)
    for _ in range(5):
        assert claim(queue, [job_id])
        end_lease(queue, job_id)
        assert recover(queue, alive=True) == (1, 0)
    assert state(queue.sessions, job_id) == "queued"


def test_a_job_put_back_waits_longer_after_each_attempt(queue: Queue):
    [job_id] = accept(queue)
    waits = []
    for _ in range(2):
        claim(queue, [job_id])
        end_lease(queue, job_id)
        recover(queue)
        with transaction(queue.sessions, write=False) as session:
            waits.append(session.scalars(select(Job.not_before - now_ms())).one())
    assert 0 < waits[0] <= 1000 < waits[1] <= 4000
    assert counts(queue) == (1, 1)


def test_a_canceled_job_is_not_claimed_and_a_running_ones_result_is_dropped(queue: Queue):
    waiting, running = accept(queue, 2)
    [claimed] = claim(queue, [running])
    for job_id in (waiting, running):
        with transaction(queue.sessions) as session:
            job = session.get(Job, job_id)
            assert job is not None
            assert jobs.cancel(session, job)
    assert claim(queue, [waiting]) == []
    assert finish(queue, claimed) == []
    assert (state(queue.sessions, waiting), state(queue.sessions, running)) == ("canceled", "canceled")
    assert counts(queue) == (0, 0)


def test_a_final_job_is_not_canceled(queue: Queue):
    [job_id] = accept(queue)
    [claimed] = claim(queue, [job_id])
    finish(queue, claimed)
    with transaction(queue.sessions) as session:
        job = session.get(Job, job_id)
        assert job is not None
        assert not jobs.cancel(session, job)
    assert state(queue.sessions, job_id) == "succeeded"


def test_a_job_that_was_claimed_since_it_was_looked_up_is_canceled_all_the_same(queue: Queue):
    [job_id] = accept(queue)
    with transaction(queue.sessions, write=False) as session:
        seen = session.get(Job, job_id)
    [claimed] = claim(queue, [job_id])
    with transaction(queue.sessions) as session:
        session.add(seen)
        assert jobs.cancel(session, seen)
    assert finish(queue, claimed) == []
    assert state(queue.sessions, job_id) == "canceled"
    assert counts(queue) == (0, 0)


def test_a_job_past_its_deadline_expires_without_running(queue: Queue):
    [job_id] = accept(queue, seconds=0.0)
    time.sleep(0.01)
    assert claim(queue, [job_id]) == []
    with transaction(queue.sessions) as session:
        assert jobs.expire(session) == 1
    assert state(queue.sessions, job_id) == "expired"
    assert counts(queue) == (0, 0)


def test_a_job_whose_client_lost_its_right_is_canceled_when_claimed(queue: Queue):
    [job_id] = accept(queue)
    with transaction(queue.sessions) as session:
        clients.set_disabled(session, queue.client_id, True)
    assert claim(queue, [job_id]) == []
    assert state(queue.sessions, job_id) == "canceled"
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(Job.error_code)).one() == "rights_withdrawn"


def test_leases_are_renewed_for_the_holder_only(queue: Queue):
    [job_id] = accept(queue)
    claim(queue, [job_id], "default:holder")
    end_lease(queue, job_id)
    with transaction(queue.sessions) as session:
        jobs.renew(session, [job_id], "default:stranger")
    with transaction(queue.sessions) as session:
        jobs.renew(session, [job_id], "default:holder")
    assert recover(queue) == (0, 0)


def test_no_more_than_the_limit_lies_in_a_lane_and_the_rest_follows_in_order(queue: Queue):
    ids = accept(queue, 5, ahead_limit=2)
    assert counts(queue) == (5, 3)
    lane = queue.lane(Priority.BULK).name
    claim(queue, ids[:2])
    with transaction(queue.sessions) as session:
        assert dispatch.lay_out(session, lane, 2) == ids[2:4]
    with transaction(queue.sessions) as session:
        assert dispatch.lay_out(session, lane, 2) == []
    # None is laid out ahead of an older one that still waits, although there would be room.
    claim(queue, ids[2:4])
    accept(queue, 1, ahead_limit=2)
    assert counts(queue) == (2, 2)


def test_a_purged_job_is_gone_with_its_payload(queue: Queue):
    [job_id] = accept(queue)
    [claimed] = claim(queue, [job_id])
    with transaction(queue.sessions) as session:
        jobs.finish(session, [jobs.Ending(job_id, claimed.fence, result_stored=True)])
    with transaction(queue.sessions) as session:
        assert jobs.purge(session, keep_seconds=3600) == []
    with transaction(queue.sessions) as session:
        session.execute(update(Job).values(finished_at=now_ms() - 7_200_000))
    with transaction(queue.sessions) as session:
        assert jobs.purge(session, keep_seconds=3600) == [f"{job_id}.input", f"{job_id}.1.result"]
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(Job.id)).all() == []


def test_one_process_of_many_leads(queue: Queue):
    with transaction(queue.sessions) as session:
        assert dispatch.hold(session, "role", "one", 60)
        assert not dispatch.hold(session, "role", "two", 60)
        assert dispatch.hold(session, "role", "one", 0)
    time.sleep(0.01)
    with transaction(queue.sessions) as session:
        assert dispatch.hold(session, "role", "two", 60)


def make_dispatcher(queue: Queue) -> dispatch.Dispatcher:
    settings = queue.settings
    with_ = dispatch.Collaborators(
        queue.sessions, connect(settings), queue.artifacts, Publisher(broker(settings)), settings, 8
    )
    return dispatch.Dispatcher(with_, "g1")


def test_jobs_laid_out_are_run_and_their_results_kept(queue: Queue):
    ids = accept(queue, 30, ahead_limit=0)
    dispatcher = make_dispatcher(queue)
    lane = queue.lane(Priority.BULK)
    with running_slot(queue) as slot:
        until = time.monotonic() + 15
        while time.monotonic() < until and any(state(queue.sessions, job_id) != "succeeded" for job_id in ids):
            dispatcher.turn()
            slot.ring(lane)
            time.sleep(0.05)
    assert {state(queue.sessions, job_id) for job_id in ids} == {"succeeded"}
    with transaction(queue.sessions, write=False) as session:
        assert set(session.scalars(select(Job.result))) == {b'{"predictions":[[2.0,4.0]]}'}
    dispatcher.close_connections()


def run_jobs(queue: Queue, ids: list[str]) -> None:
    """Lay jobs out in one read and let a session run them until each is final."""
    lane = queue.lane(Priority.BULK)
    for job_id in ids:
        queue.client.xadd(queue.keys.lane(lane), {"j": job_id})
    with running_slot(queue) as slot:
        slot.ring(lane)
        wait_until(lambda: all(state(queue.sessions, job_id) in jobs.FINAL for job_id in ids))


def accept_stored(queue: Queue, body: bytes | None) -> str:
    """A job whose input should lie in the store; where `body` is None it does not."""
    draft = jobs.Draft(jobs.new_id(), queue.lane(Priority.BULK), "tensorflow_serving", 1, None, 60)
    if body is not None:
        queue.artifacts.put_payload(jobs.input_name(draft.id), body)
    with transaction(queue.sessions) as session:
        jobs.accept(session, [draft], 100)
    return draft.id


def test_a_job_whose_input_is_gone_spoils_no_other_job_of_its_batch(queue: Queue):
    gone, stored = accept_stored(queue, None), accept_stored(queue, BODY)
    run_jobs(queue, [gone, stored])
    assert (state(queue.sessions, gone), state(queue.sessions, stored)) == ("failed", "succeeded")


def test_a_job_that_fails_for_no_foreseen_reason_ends_after_its_attempts(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "MOST_ATTEMPTS", 1)
    [job_id] = accept(queue)
    stored = accept_stored(queue, None)
    # What lies in the place of the input cannot be read: an error that nothing expects.
    (queue.artifacts.root / "payloads" / jobs.input_name(stored)).mkdir(parents=True)
    run_jobs(queue, [stored, job_id])
    assert (state(queue.sessions, stored), state(queue.sessions, job_id)) == ("failed", "succeeded")


def test_jobs_of_a_wiped_redis_are_found_lost_and_laid_out_again(queue: Queue):
    [job_id] = accept(queue)
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
    assert state(queue.sessions, job_id) == "queued"


def test_a_job_whose_entry_was_overtaken_by_younger_ones_is_lost(queue: Queue):
    old, young = accept(queue, 2)
    lane = queue.lane(Priority.BULK)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.id == old).values(dispatched_at=now_ms() - 10_000))
    queue.client.xadd(queue.keys.lane(lane), {"j": young})
    dispatcher = make_dispatcher(queue)
    dispatcher.turn()
    dispatcher.turn()
    entries = [fields[b"j"].decode() for _, fields in queue.client.xrange(queue.keys.lane(lane))]
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


def test_a_lane_has_one_name_and_is_read_back_from_it():
    lane = Lane("mnist", 3, Priority.BULK, "cli_x")
    assert Lane.parse(lane.name) == lane
