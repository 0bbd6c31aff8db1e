"""How jobs end that nobody runs to their end: told to those who wait, with what hangs on them, and as dead letters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from auth import clients
from model_store.database import now_ms, transaction
from tests.conftest import RedisServer
from tests.job_kit import BODY, accept, claim, collaborators, counts, end_back_off, end_lease, state
from tests.queue_kit import Queue, make_queue, running_slot, wait_until, worker_settings
from workers import jobs
from workers.attempts import INFRASTRUCTURE, TRIED_AGAIN
from workers.drafts import CHUNK, FILE, Kind
from workers.lanes import JOB_FIELD, Priority
from workers.runner.process import MESSAGES
from workers.sweep import Sweep
from workers.tables import Job


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


class Told:
    """Listens on the channel of ends."""

    def __init__(self, queue: Queue) -> None:
        self._channel = queue.client.pubsub(ignore_subscribe_messages=True)
        self._channel.subscribe(queue.keys.ends())
        self._channel.get_message(timeout=5)
        self.ids: list[str] = []

    def includes(self, ids: list[str]) -> bool:
        message = self._channel.get_message(timeout=0.1)
        self.ids += message["data"].decode().split() if message else []
        return set(ids) <= set(self.ids)


def add(queue: Queue, kind: Kind, parent: int | None = None, *, attempts: int = 3) -> int:
    lane = queue.lane(Priority.BULK)
    draft = jobs.Draft(jobs.new_id(), lane, "rows", 1, BODY, 60, kind=kind, parent=parent, max_attempts=attempts)
    with transaction(queue.sessions) as session:
        laid_out = jobs.accept(session, [draft], 100)
        assert (kind == FILE) == (not laid_out)
        return session.scalars(select(Job.number).where(Job.id == draft.id)).one()


def cancel(queue: Queue, number: int) -> bool:
    with transaction(queue.sessions) as session:
        return jobs.cancel(session, session.get_one(Job, number))


def ids_of(queue: Queue, numbers: list[int]) -> list[str]:
    with transaction(queue.sessions, write=False) as session:
        return list(session.scalars(select(Job.id).where(Job.number.in_(numbers))))


def letter(queue: Queue, number: int) -> tuple[str, str | None, bool]:
    with transaction(queue.sessions, write=False) as session:
        return tuple(session.execute(select(Job.state, Job.error_code, Job.dead).where(Job.number == number)).one())


def change(queue: Queue, number: int, **values: object) -> None:
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number == number).values(**values))


def test_ends_that_the_sweep_brings_are_told(queue: Queue):
    told = Told(queue)
    late, lost = accept(queue, 2)
    change(queue, late, deadline=1)
    change(queue, lost, max_attempts=1)
    claim(queue, [lost])
    end_lease(queue, lost)
    Sweep(collaborators(queue)).run()
    assert (state(queue.sessions, late), state(queue.sessions, lost)) == ("expired", "failed")
    wait_until(lambda: told.includes(ids_of(queue, [late, lost])))


def test_a_job_that_may_not_run_any_more_is_told_as_ended_by_the_worker_that_was_to_run_it(queue: Queue):
    told = Told(queue)
    [number] = accept(queue)
    with transaction(queue.sessions) as session:
        clients.set_disabled(session, queue.client_id, True)
    lane = queue.lane(Priority.BULK)
    queue.client.xadd(queue.keys.lane(lane), {JOB_FIELD: number})
    with running_slot(queue) as slot:
        slot.ring(lane)
        wait_until(lambda: told.includes(ids_of(queue, [number])))
    assert state(queue.sessions, number) == "canceled"


def test_only_what_failed_by_no_fault_of_its_own_is_a_dead_letter(queue: Queue):
    own, full = claim(queue, accept(queue, 2))
    endings = [
        jobs.Ending(own.number, own.fence, error_code="prediction_failed", error_message="no such class"),
        jobs.Ending(full.number, full.fence, error_code="store_full", error_message="full"),
    ]
    with transaction(queue.sessions) as session:
        jobs.finish(session, endings)
    assert letter(queue, own.number) == ("failed", "prediction_failed", False)
    assert letter(queue, full.number) == ("failed", "store_full", True)


def test_every_way_in_which_a_runner_fails_is_tried_again(queue: Queue):
    assert set(MESSAGES) <= TRIED_AGAIN <= INFRASTRUCTURE
    [number] = accept(queue)
    for attempt in (1, 2, 3):
        [claimed] = claim(queue, [number])
        with transaction(queue.sessions) as session:
            assert jobs.retry(session, claimed) == (attempt < 3)
        assert claim(queue, [number]) == [], "it rests first, whoever asks for it"
        end_back_off(queue)


def test_a_job_has_as_many_attempts_as_it_was_given(queue: Queue):
    [number] = accept(queue)
    change(queue, number, max_attempts=1)
    claim(queue, [number])
    end_lease(queue, number)
    Sweep(collaborators(queue)).run()
    assert letter(queue, number) == ("failed", "worker_crashed", True)


def test_a_file_is_in_no_lane_and_takes_its_chunks_along(queue: Queue):
    file = add(queue, FILE)
    assert counts(queue) == (0, 0)
    assert claim(queue, [file]) == [], "an entry brings no file"
    with transaction(queue.sessions) as session:
        assert jobs.due_files(session, 10) == [file]
        assert jobs.claim_file(session, file, "background:w") is not None
        assert jobs.claim_file(session, file, "background:other") is None
    waiting, running = add(queue, CHUNK, file), add(queue, CHUNK, file)
    [claimed] = claim(queue, [running])
    assert cancel(queue, file)
    assert [state(queue.sessions, number) for number in (file, waiting, running)] == ["canceled"] * 3
    assert counts(queue) == (0, 0)
    with transaction(queue.sessions) as session:
        assert jobs.finish(session, [jobs.Ending(running, claimed.fence, b"{}")]) == []


def test_a_running_file_past_its_deadline_expires_with_its_chunks(queue: Queue):
    file = add(queue, FILE)
    with transaction(queue.sessions) as session:
        held = jobs.claim_file(session, file, "background:w")
    assert held is not None
    chunk = add(queue, CHUNK, file)
    change(queue, file, deadline=1)
    Sweep(collaborators(queue)).run()
    assert state(queue.sessions, file) == "expired"
    with transaction(queue.sessions) as session:
        assert not jobs.progress(session, file, held.fence, 1, 2)
    with transaction(queue.sessions, write=False) as session:
        found = session.scalars(select(Job.state).where(Job.number == chunk)).one_or_none()
    assert found in ("canceled", None)


def test_a_file_that_came_forward_has_all_its_attempts_again(queue: Queue):
    file = add(queue, FILE, attempts=2)
    for done in (5, 9):
        with transaction(queue.sessions) as session:
            held = jobs.claim_file(session, file, "background:w")
            assert held is not None
            assert jobs.progress(session, file, held.fence, done, 100)
        end_lease(queue, file)
        Sweep(collaborators(queue)).run()
        assert state(queue.sessions, file) == "queued"
        end_back_off(queue)
    with transaction(queue.sessions, write=False) as session:
        assert session.execute(select(Job.done, Job.instances)).one() == (9, 100)


def test_chunks_whose_file_is_gone_end_and_are_forgotten(queue: Queue):
    file = add(queue, FILE)
    chunk = add(queue, CHUNK, file)
    with transaction(queue.sessions) as session:
        jobs.forget(session, [file])
    sweep = Sweep(collaborators(queue))
    sweep.run()
    assert letter(queue, chunk)[0] == "canceled"
    assert counts(queue) == (0, 0)
    sweep.run()
    assert ids_of(queue, [chunk]) == []


def test_who_renews_is_told_what_it_still_holds_and_says_how_far_it_is(queue: Queue):
    kept, canceled = accept(queue, 2)
    claim(queue, [kept, canceled])
    cancel(queue, canceled)
    with transaction(queue.sessions) as session:
        assert jobs.renew(session, [kept, canceled], "default:w", {kept: 7, canceled: 7}) == {kept}
    with transaction(queue.sessions, write=False) as session:
        rows = session.execute(select(Job.done, Job.lease_until > now_ms()).order_by(Job.number)).all()
    assert [tuple(row) for row in rows] == [(7, True), (0, None)]
