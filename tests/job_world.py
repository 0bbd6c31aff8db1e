"""What the machine of tests/test_job_machine.py moves: rows and lanes, and what a row should say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from sqlalchemy import delete, func, select, update

from auth import clients
from model_store.database import Sessions, transaction
from workers import jobs
from workers.drafts import CHUNK, FILE, NO_LANE, Kind
from workers.lanes import GROUP, JOB_FIELD, Keys, Lane, Priority
from workers.tables import Job, JobInput, JobResult, LaneCount

MODEL, VERSION = "double", 1
# As far away as no example is long: time passes only where the machine says so.
FAR_MS = 2**50
UNFINISHED = ("queued", "running")


@dataclass
class Expected:
    """What a job's row should say."""

    draft: jobs.Draft
    number: int
    lane: str
    state: str = "queued"
    fence: int = 0
    attempt: int = 0
    worker: str | None = None
    laid_out: bool = False
    resting: bool = False  # its back-off is not over
    late: bool = False
    lease_over: bool = False
    dead: bool = False
    done: int = 0
    instances: int = 1
    result: bytes | None = None

    @property
    def kind(self) -> Kind:
        return self.draft.kind

    @property
    def due(self) -> bool:
        return self.state == "queued" and not self.resting and not self.late

    def holds(self, run: jobs.Claimed) -> bool:
        return self.state == "running" and self.fence == run.fence

    def taken(self, worker: str) -> None:
        self.state, self.worker, self.lease_over = "running", worker, False
        self.fence += 1
        self.attempt += 1

    def back(self, attempt: int, *, resting: bool) -> None:
        self.state, self.worker, self.laid_out = "queued", None, False
        self.fence += 1
        self.attempt, self.resting = attempt, resting
        self.done = self.done if self.kind == FILE else 0

    def row(self) -> tuple[Any, ...]:
        fixed = (self.state, self.fence, self.attempt, self.worker, self.laid_out, self.dead, self.done)
        return (self.number, *fixed, self.state == "running", self.state not in UNFINISHED)


class World:
    """A database with two clients, and a Redis; both are emptied for each example."""

    def __init__(self, sessions: Sessions, client: redis.Redis, keys: Keys, client_ids: Sequence[str]) -> None:
        self.sessions = sessions
        self.redis = client
        self.keys = keys
        self.lanes = [Lane(MODEL, VERSION, Priority.BULK, client_id) for client_id in client_ids]
        self.steps = 0

    def empty(self) -> None:
        with transaction(self.sessions) as session:
            for table in (Job, JobInput, JobResult, LaneCount):
                session.execute(delete(table))
        for lane in self.lanes:
            self.allow(lane.client_id, True)
        self.redis.flushall()

    def allow(self, client_id: str, allowed: bool) -> None:
        with transaction(self.sessions) as session:
            clients.set_disabled(session, client_id, not allowed)

    def change(self, numbers: Iterable[int], **values: object) -> None:
        """Time passes for these rows."""
        with transaction(self.sessions) as session:
            session.execute(update(Job).where(Job.number.in_(list(numbers))).values(**values))

    def lay_out(self, lane: str, numbers: Iterable[int]) -> list[bytes]:
        """The ids of the entries."""
        return [self.redis.xadd(self.keys.lane(lane), {JOB_FIELD: number}) for number in numbers]  # type: ignore[misc] # not asyncio's client

    def create_group(self, lane: str) -> None:
        # Usually it exists already.
        with contextlib.suppress(redis.ResponseError):
            self.redis.xgroup_create(self.keys.lane(lane), GROUP, "0", mkstream=True)

    def read(self, lane: str, consumer: str, most: int) -> list[tuple[bytes, int]]:
        """New entries of a lane, with the numbers in them."""
        self.create_group(lane)
        found: Any = self.redis.xreadgroup(GROUP, consumer, {self.keys.lane(lane): ">"}, count=most)
        return [(entry, int(fields[JOB_FIELD])) for _, entries in found for entry, fields in entries]

    def read_again(self, lane: str, consumer: str) -> list[tuple[bytes, int]]:
        """Everything that anybody has read and not acknowledged."""
        self.create_group(lane)
        key = self.keys.lane(lane)
        pending: Any = self.redis.xpending_range(key, GROUP, "-", "+", 100)
        ids = [entry["message_id"] for entry in pending]
        found: Any = self.redis.xclaim(key, GROUP, consumer, 0, ids) if ids else []
        return [(entry, int(fields[JOB_FIELD])) for entry, fields in found if fields]

    def settle(self, lane: str, entries: Sequence[tuple[bytes, int]]) -> None:
        if entries:
            ids = [entry for entry, _ in entries]
            self.redis.xack(self.keys.lane(lane), GROUP, *ids)
            self.redis.xdel(self.keys.lane(lane), *ids)

    def rows(self) -> list[tuple[Any, ...]]:
        query = select(
            Job.number, Job.state, Job.fence, Job.attempt, Job.worker, Job.dispatched_at.is_not(None), Job.dead,
            Job.done, Job.lease_until.is_not(None), Job.finished_at.is_not(None),
        )  # fmt: skip
        with transaction(self.sessions, write=False) as session:
            return [tuple(row) for row in session.execute(query.order_by(Job.number))]

    def ends(self) -> dict[int, tuple[Any, ...]]:
        """All that a final row says."""
        query = select(
            Job.number, Job.state, Job.fence, Job.finished_at, Job.error_code, Job.error_message, Job.dead
        ).where(Job.state.not_in(UNFINISHED))
        with transaction(self.sessions, write=False) as session:
            return {row.number: tuple(row) for row in session.execute(query)}

    def results(self) -> dict[int, bytes]:
        with transaction(self.sessions, write=False) as session:
            return dict(iter(session.execute(select(JobResult.job, JobResult.body))))

    def counts(self) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
        """Queued and waiting jobs of each lane: as they are kept, and as the rows say."""
        waiting = func.sum(func.coalesce(Job.dispatched_at * 0, 1))
        counted = select(Job.lane, func.count(), waiting).where(Job.state == "queued", Job.lane != NO_LANE)
        with transaction(self.sessions, write=False) as session:
            kept = session.execute(select(LaneCount.lane, LaneCount.queued, LaneCount.waiting)).all()
            of_rows = session.execute(counted.group_by(Job.lane)).all()
        return (
            {lane: (queued, waits) for lane, queued, waits in kept if queued or waits},
            {lane: (int(queued), int(waits)) for lane, queued, waits in of_rows},
        )


def draft(lane: Lane, kind: Kind, max_attempts: int, parent: int | None = None) -> jobs.Draft:
    """A draft whose deadline and leases are further away than any example is long."""
    assert (parent is not None) == (kind == CHUNK)
    return jobs.Draft(
        jobs.new_id(), lane, "rows", 1, b"input", FAR_MS / 1000, kind=kind, parent=parent, max_attempts=max_attempts
    )
