"""How long jobs are kept: as the settings say, or as a client's own limit does; nothing of them outlives them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select, update

from auth.errors import LimitInvalid
from auth.limits import EVERYTHING, Bounds, set_limits
from model_store.database import now_ms, transaction
from tests.conftest import RedisServer
from tests.job_kit import accept, claim
from tests.queue_kit import Queue, make_queue, worker_settings
from workers import jobs
from workers.lanes import Priority
from workers.retention import Kept, Retention
from workers.tables import Job, JobInput

HOUR = 3600.0
KEPT = Kept(job_seconds=24 * HOUR, dead_seconds=7 * 24 * HOUR)


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


def ended(queue: Queue, hours_ago: float, *, client_id: str | None = None, dead: bool = False) -> int:
    """The number of a job that ended so long ago."""
    [number] = accept(queue)
    values = {"state": "succeeded", "finished_at": now_ms() - int(hours_ago * HOUR * 1000), "dead": dead}
    with transaction(queue.sessions) as session:
        values |= {} if client_id is None else {"client_id": client_id}
        session.execute(update(Job).where(Job.number == number).values(**values))
    return number


def left(queue: Queue) -> list[int]:
    with transaction(queue.sessions, write=False) as session:
        found = list(session.scalars(select(Job.number).order_by(Job.number)))
        assert set(session.scalars(select(JobInput.job))) <= set(found)
    return found


def own_time(queue: Queue, seconds: int | None) -> None:
    with transaction(queue.sessions) as session:
        set_limits(session, queue.client_id, {EVERYTHING: Bounds(job_keep_seconds=seconds)})


def retention(queue: Queue) -> Retention:
    return Retention(queue.sessions, queue.artifacts, KEPT)


def test_jobs_are_kept_a_day_and_dead_letters_a_week_unless_the_settings_say_otherwise(queue: Queue):
    assert Kept.by(queue.settings) == KEPT
    [waiting] = accept(queue)
    _, young, _, dead = (
        ended(queue, 25), ended(queue, 23), ended(queue, 8 * 24, dead=True), ended(queue, 25, dead=True),
    )  # fmt: skip
    assert retention(queue).purge(10)
    assert left(queue) == [waiting, young, dead]


def test_a_clients_own_time_holds_for_its_jobs_alone(queue: Queue):
    others = [ended(queue, hours, client_id="cli_other") for hours in (2, 25)]
    mine = [ended(queue, hours) for hours in (0.5, 2, 25)]
    dead = ended(queue, 2, dead=True)
    keeping = retention(queue)
    # shorter: also for dead letters, since somebody promised that nothing stays
    own_time(queue, int(HOUR))
    assert keeping.purge(10)
    assert left(queue) == [others[0], mine[0]]
    # longer: also for one that begins to look, as after a restart
    old, keeping = ended(queue, 30), retention(queue)
    own_time(queue, int(48 * HOUR))
    assert keeping.purge(10)
    assert left(queue) == [others[0], mine[0], old]
    # lifted: the next look from the beginning finds what was passed by
    own_time(queue, None)
    keeping.sweep_store()
    assert keeping.purge(10)
    assert left(queue) == [others[0], mine[0]]
    assert dead not in left(queue)


def test_an_answered_chunk_stays_for_its_file_however_long_nobody_collects_it(queue: Queue):
    [file] = accept(queue)
    chunks = [ended(queue, 25), ended(queue, 8 * 24, dead=True)]
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number == file).values(kind="file", lane="", state="running"))
        session.execute(update(Job).where(Job.number.in_(chunks)).values(kind="chunk", parent=file))
    assert retention(queue).purge(10)
    assert left(queue) == [file, *chunks]
    # and goes with it
    ago = now_ms() - int(25 * HOUR * 1000)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number == file).values(state="succeeded", finished_at=ago))
    assert retention(queue).purge(10)
    assert left(queue) == []


def test_a_run_is_bounded_and_says_whether_there_is_more(queue: Queue):
    numbers = accept(queue, 600, ahead_limit=0)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number.in_(numbers)).values(state="failed", finished_at=1000))
    keeping = retention(queue)
    assert not keeping.purge(1)
    assert len(left(queue)) == 100
    assert keeping.purge(1)
    assert left(queue) == []
    own_time(queue, 60)
    numbers = accept(queue, 600, ahead_limit=0)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number.in_(numbers)).values(state="failed", finished_at=1000))
    assert not keeping.purge(1)
    assert keeping.purge(1)


def test_with_a_job_go_the_files_of_all_its_attempts(queue: Queue):
    number = ended(queue, 25)
    with transaction(queue.sessions) as session:
        session.execute(update(Job).where(Job.number == number).values(fence=3, result_stored=True))
        job_id = session.get_one(Job, number).id
    names = [jobs.input_name(job_id), *(jobs.result_name(job_id, fence) for fence in (1, 2, 3))]
    for name in names:
        queue.artifacts.put_payload(name, b"x")
    assert retention(queue).purge(1)
    assert list((queue.artifacts.root / "payloads").iterdir()) == []


def test_old_payloads_without_a_job_are_swept_and_no_others(queue: Queue):
    [number] = accept(queue)
    [claimed] = claim(queue, [number])
    with transaction(queue.sessions) as session:
        jobs.finish(session, [jobs.Ending(number, claimed.fence, result_stored=True)])
        session.execute(update(Job).values(fence=2))
    kept = [jobs.input_name(claimed.id), jobs.result_name(claimed.id, 2), "nobodys-young.input"]
    swept = [jobs.result_name(claimed.id, 1), "nobodys.input", "nobodys.1.result", "odd"]
    for name in (*kept, *swept):
        queue.artifacts.put_payload(name, b"x")
        if name != "nobodys-young.input":
            os.utime(queue.artifacts.payload_path(name), (0, 0))
    assert retention(queue).sweep_store() == len(swept)
    assert sorted(path.name for path in (queue.artifacts.root / "payloads").iterdir()) == sorted(kept)


def test_a_time_of_ones_own_is_about_all_jobs(queue: Queue):
    assert queue.lane(Priority.BULK).client_id == queue.client_id
    with transaction(queue.sessions) as session, pytest.raises(LimitInvalid, match="without a model"):
        set_limits(session, queue.client_id, {"double": Bounds(job_keep_seconds=60)})
