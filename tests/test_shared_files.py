"""Files that several jobs read, as a dead one and its replay do: whose they are where both change at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.orm import Session

from auth.standing import UNKNOWN
from model_store.database import clock_ms, now_ms, transaction
from tests.conftest import RedisServer
from tests.queue_kit import Queue, make_queue, wait_until, worker_settings
from workers import jobs
from workers.drafts import FILE
from workers.erasure import erase
from workers.files.keeping import INPUT, NEVER, add_batch, new_file_id
from workers.files.tables import Batch, File
from workers.lanes import Lane, Priority
from workers.replay import JobInputGone, replay
from workers.tables import Job

# Of SQLite, there is one writer at a time.
pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
T = TypeVar("T")


@pytest.fixture
def queue(redis_server: RedisServer, database_url: str, tmp_path: Path) -> Iterator[Queue]:
    made = make_queue(worker_settings(redis_server.url, database_url, tmp_path), tmp_path)
    yield made
    made.close()


@pytest.fixture
def file(queue: Queue) -> str:
    """A file that lies in the store."""
    name = new_file_id()
    with queue.artifacts.receive_file(name, 100) as receipt:
        receipt.write(b"[1,2]\n")
        receipt.commit()
    with transaction(queue.sessions) as session:
        session.add(File(id=name, client_id=queue.client_id, name="f", purpose=INPUT, format="jsonl", expires_at=NEVER))
    return name


def dead_job(queue: Queue, file: str, *, owns: bool) -> int:
    """The number of a job that read the file, and died."""
    lane = Lane("double", queue.version, Priority.BULK, queue.client_id)
    draft = jobs.Draft(jobs.new_id(), lane, "rows", 1, None, 60, UNKNOWN, kind=FILE)
    with transaction(queue.sessions) as session:
        jobs.accept(session, [draft], 0)
        job = session.scalars(select(Job).where(Job.id == draft.id)).one()
        add_batch(session, job, Batch(input_file=file, owns_input=owns))
        dead = update(Job).where(Job.id == draft.id).values(state="failed", dead=True, finished_at=now_ms())
        session.execute(dead)
        return job.number


def meanwhile(queue: Queue, first: Callable[[Session], T], second: Callable[[Session], T]) -> tuple[T, T]:
    """What both return, where the first commits once the second waits for it."""

    def other() -> T:
        with transaction(queue.sessions) as session:
            return second(session)

    def waits() -> bool:
        # What a transaction sees of others' waits is as of its first look.
        with transaction(queue.sessions, write=False) as looking:
            return bool(looking.scalar(text("SELECT count(*) FROM pg_locks WHERE NOT granted")))

    with ThreadPoolExecutor(1) as threads:
        with transaction(queue.sessions) as session:
            found = first(session)
            session.flush()
            future = threads.submit(other)
            wait_until(waits)
        return found, future.result(timeout=20)


def test_of_two_jobs_that_go_at_once_the_last_takes_their_file_along(queue: Queue, file: str):
    owner, heir = dead_job(queue, file, owns=True), dead_job(queue, file, owns=False)
    left, gone = meanwhile(
        queue,
        lambda session: erase(session, [owner], untold=False).files,
        lambda session: erase(session, [heir], untold=False).files,
    )
    assert file not in left
    assert file in gone
    with transaction(queue.sessions, write=False) as session:
        assert session.get(File, file) is None


def test_a_file_stays_where_its_job_goes_while_it_is_replayed(queue: Queue, file: str):
    dead = dead_job(queue, file, owns=True)

    def again(session: Session) -> list[str]:
        job = session.get_one(Job, dead)
        return [replay(session, queue.artifacts, job, authority=UNKNOWN, job_seconds=60)]

    [new], gone = meanwhile(queue, again, lambda session: list(erase(session, [dead], untold=False).files))
    assert file not in gone
    with transaction(queue.sessions, write=False) as session:
        heir = session.scalars(select(Batch).join(Job, Job.number == Batch.job).where(Job.id == new)).one()
        kept = session.get_one(File, file)
        assert heir.owns_input
        assert kept.expires_at > clock_ms(session)


def test_a_job_whose_file_goes_meanwhile_is_not_replayed(queue: Queue, file: str):
    dead = dead_job(queue, file, owns=True)

    def again(session: Session) -> list[str]:
        with pytest.raises(JobInputGone):
            replay(session, queue.artifacts, session.get_one(Job, dead), authority=UNKNOWN, job_seconds=60)
        return []

    gone, _ = meanwhile(queue, lambda session: list(erase(session, [dead], untold=False).files), again)
    assert file in gone
