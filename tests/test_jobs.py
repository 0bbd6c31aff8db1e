"""The asynchronous job: every legal move, the fence, leases, laying out, and what is found lost."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from auth import clients
from auth.grants import Standing
from model_store.database import Sessions, now_ms, transaction
from tests.conftest import RedisServer
from tests.queue_kit import Queue, make_queue, running_slot, wait_until, worker_settings
from workers import dispatch, jobs, lane_counts, layout, roles
from workers.broker import broker
from workers.lanes import Lane, Priority
from workers.publisher import Publisher
from workers.redis_link import connect
from workers.sweep import Collaborators, Sweep
from workers.tables import Job, JobInput, JobResult, LaneCount

BODY = b'{"instances": [[1.0, 2.0]]}'


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


def accept(queue: Queue, number: int = 1, *, ahead_limit: int = 100, seconds: float = 60) -> list[int]:
    """The numbers of new jobs."""
    lane = queue.lane(Priority.BULK)
    drafts = [jobs.Draft(jobs.new_id(), lane, "tensorflow_serving", 1, BODY, seconds) for _ in range(number)]
    with transaction(queue.sessions) as session:
        jobs.accept(session, drafts, ahead_limit)
        return numbers_of(session, drafts)


def numbers_of(session: Session, drafts: Sequence[jobs.Draft]) -> list[int]:
    """What the drafts were numbered, in their order."""
    numbers = {row.id: row.number for row in session.execute(select(Job.id, Job.number))}
    return [numbers[draft.id] for draft in drafts]


def state(sessions: Sessions, number: int) -> str:
    with transaction(sessions, write=False) as session:
        return session.scalars(select(Job.state).where(Job.number == number)).one()


def claim(queue: Queue, numbers: list[int], worker: str = "default:w") -> list[jobs.Claimed]:
    with transaction(queue.sessions) as session:
        return jobs.claim(session, numbers, ("double", queue.version), worker, Standing())


def finish(queue: Queue, claimed: jobs.Claimed, result: bytes = b"{}") -> list[str]:
    with transaction(queue.sessions) as session:
        return jobs.finish(session, [jobs.Ending(claimed.number, claimed.fence, result)])


def end_lease(queue: Queue, number: int) -> None:
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number == number).values(lease_until=now_ms() - 1))


def recover(queue: Queue, *, alive: bool = False) -> tuple[int, int]:
    with transaction(queue.sessions) as session:
        return jobs.recover(session, lambda _: alive)


def counts(queue: Queue) -> tuple[int, int]:
    with transaction(queue.sessions, write=False) as session:
        row = session.get(LaneCount, queue.lane(Priority.BULK).name)
        return (row.queued, row.waiting) if row else (0, 0)


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
    with transaction(queue.sessions) as session:
        session.execute(update(Job).values(not_before=0))
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
        assert jobs.expire(session) == 1
    assert state(queue.sessions, number) == "expired"
    assert counts(queue) == (0, 0)


def test_a_job_whose_client_lost_its_right_is_canceled_when_claimed(queue: Queue):
    [number] = accept(queue)
    with transaction(queue.sessions) as session:
        clients.set_disabled(session, queue.client_id, True)
    assert claim(queue, [number]) == []
    assert state(queue.sessions, number) == "canceled"
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(Job.error_code)).one() == "rights_withdrawn"


def test_leases_are_renewed_for_the_holder_only(queue: Queue):
    [number] = accept(queue)
    claim(queue, [number], "default:holder")
    end_lease(queue, number)
    with transaction(queue.sessions) as session:
        jobs.renew(session, [number], "default:stranger")
    with transaction(queue.sessions) as session:
        jobs.renew(session, [number], "default:holder")
    assert recover(queue) == (0, 0)


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


def test_a_purged_job_is_gone_with_its_payload(queue: Queue):
    [number] = accept(queue)
    [claimed] = claim(queue, [number])
    with transaction(queue.sessions) as session:
        jobs.finish(session, [jobs.Ending(number, claimed.fence, result_stored=True)])
    with transaction(queue.sessions) as session:
        assert jobs.purge(session, keep_seconds=3600) == (0, [])
    with transaction(queue.sessions) as session:
        session.execute(update(Job).values(finished_at=now_ms() - 7_200_000))
    with transaction(queue.sessions) as session:
        assert jobs.purge(session, keep_seconds=3600) == (1, [f"{claimed.id}.input", f"{claimed.id}.1.result"])
    with transaction(queue.sessions, write=False) as session:
        assert session.scalars(select(Job.id)).all() == []
        assert session.scalars(select(JobInput.job)).all() == []


def test_one_process_of_many_leads(queue: Queue):
    with transaction(queue.sessions) as session:
        assert roles.hold(session, "role", "one", 60)
        assert not roles.hold(session, "role", "two", 60)
        assert roles.hold(session, "role", "one", 0)
    time.sleep(0.01)
    with transaction(queue.sessions) as session:
        assert roles.hold(session, "role", "two", 60)


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


def collaborators(queue: Queue) -> Collaborators:
    settings = queue.settings
    return Collaborators(queue.sessions, connect(settings), queue.artifacts, Publisher(broker(settings)), settings, 8)


def make_dispatcher(queue: Queue) -> dispatch.Dispatcher:
    return dispatch.Dispatcher(collaborators(queue), "g1")


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


def test_a_job_that_fails_for_no_foreseen_reason_ends_after_its_attempts(queue: Queue, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "MOST_ATTEMPTS", 1)
    [number] = accept(queue)
    stored, job_id = accept_stored(queue, None)
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


def test_a_lane_has_one_name_and_is_read_back_from_it():
    lane = Lane("mnist", 3, Priority.BULK, "cli_x")
    assert Lane.parse(lane.name) == lane


def test_an_entry_of_a_deleted_job_brings_no_job_of_another_version(queue: Queue):
    [number] = accept(queue)
    with transaction(queue.sessions) as session:
        assert jobs.claim(session, [number], ("other", 1), "default:w", Standing()) == []
    assert state(queue.sessions, number) == "queued"


def test_jobs_are_numbered_in_the_order_in_which_they_were_accepted(queue: Queue):
    first, second = accept(queue, 3), accept(queue, 2)
    assert sorted(first + second) == first + second
    assert len({*first, *second}) == 5
