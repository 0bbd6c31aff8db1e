"""What tests of jobs share: accept, claim, finish and look at jobs of one lane."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from auth.standing import Standing
from model_store.database import Sessions, now_ms, transaction
from tests.queue_kit import Queue
from workers import dispatch, jobs
from workers.broker import broker
from workers.lanes import Priority
from workers.publisher import Publisher
from workers.redis_link import connect
from workers.sweep import Collaborators
from workers.tables import Job, LaneCount

BODY = b'{"instances": [[1.0, 2.0]]}'


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


def end_back_off(queue: Queue) -> None:
    with transaction(queue.sessions) as session:
        session.execute(update(Job).values(not_before=0))


def recover(queue: Queue, *, alive: bool = False) -> tuple[int, int]:
    with transaction(queue.sessions) as session:
        back, failed = jobs.recover(session, jobs.overdue(session) if alive else ())
        return back, len(failed)


def counts(queue: Queue) -> tuple[int, int]:
    with transaction(queue.sessions, write=False) as session:
        row = session.get(LaneCount, queue.lane(Priority.BULK).name)
        return (row.queued, row.waiting) if row else (0, 0)


def collaborators(queue: Queue) -> Collaborators:
    settings = queue.settings
    return Collaborators(queue.sessions, connect(settings), queue.artifacts, Publisher(broker(settings)), settings, 8)


def make_dispatcher(queue: Queue) -> dispatch.Dispatcher:
    return dispatch.Dispatcher(collaborators(queue), "g1")
