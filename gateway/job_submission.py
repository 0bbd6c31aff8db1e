"""Asynchronous submits: many jobs of many requests committed in one transaction, before any of them is promised."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from sqlalchemy.orm import Session

from auth.standing import UNKNOWN, Authority
from gateway.idempotent_submits import Accepted, Answer, Keyed, settle, withdraw
from gateway.job_terms import Terms
from gateway.limit_headers import Kind, Policy, refusal_headers
from gateway.submission import Submission
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import SluiceError
from monitoring.metrics import LIMITED
from workers import jobs
from workers.errors import QueueFull
from workers.lanes import JOB_FIELD, Keys, Lane
from workers.layout import ahead_limit
from workers.protocols.body import restored
from workers.redis_link import pack
from workers.settings import QueueSettings
from workers.webhooks.outbox import note_addresses

MOST_AT_ONCE = 500
ROOM_SECONDS = 0.5
FULL_SECONDS = 5


@dataclass(frozen=True, slots=True)
class Submitted:
    """A checked request that is to become a job."""

    lane: Lane
    dialect: str
    instances: int
    body: bytes
    max_batch: int
    # Of the client, of all its models and of this one; None is the setting's, and no bound.
    most_queued: int | None = None
    most_queued_of_model: int | None = None
    authority: Authority = UNKNOWN
    terms: Terms | None = None  # None: the setting's deadline, and three attempts
    keyed: Keyed | None = None
    late: SluiceError | None = None  # why it may not become a job, unless its key stands for one
    # The dispatcher alone lays it out: it knows how many jobs of the client run.
    waits: bool = False
    # Whether its end is told by webhook; and where, if its submit names an address of its own.
    notifies: bool = False
    webhook: str | None = None


Counted = tuple[str, str | None]
"""A client, and the model whose jobs are counted; None is all."""

Pending = tuple[Submitted, "asyncio.Future[Accepted]"]


class Room:
    """How many more jobs each client may have waiting; used by the thread that commits.

    Counted in SQL, then counted down for a while: only jobs that end make more room meanwhile, and jobs that the client
    submits at other gateways make less. On PostgreSQL the question took 0.13 ms of the 2 ms of a group of 16.
    """

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        # By client, and by client and model where there is a bound for one.
        self._left: dict[Counted, int] = {}
        self._asked: set[Counted] = set()
        self._begun_at = clock()

    def begin_group(self) -> None:
        """What the group before took is committed, so that it counts where SQL is asked again."""
        self._asked.clear()
        now = self._clock()
        if now - self._begun_at > ROOM_SECONDS:
            self._begun_at = now
            self._left.clear()

    def take(self, session: Session, submitted: Submitted) -> QueueFull | None:
        """None where the client may have one more; otherwise what to tell it."""
        lane, of_all, of_model = submitted.lane, submitted.most_queued, submitted.most_queued_of_model
        bounds: list[tuple[Counted, int]] = [((lane.client_id, None), self._limit if of_all is None else of_all)]
        if of_model is not None:
            bounds.append(((lane.client_id, lane.model), of_model))
        full = next(((counted, most) for counted, most in bounds if not self._has_room(session, counted, most)), None)
        if full is not None:
            return _full(*full)
        for counted, _ in bounds:
            self._left[counted] -= 1
        return None

    def _has_room(self, session: Session, counted: Counted, most: int) -> bool:
        left = self._left.get(counted, 0)
        if left <= 0 and counted not in self._asked:
            self._asked.add(counted)
            left = most - jobs.queued_of(session, *counted)
        self._left[counted] = left
        return left > 0


class JobSubmission:
    """Commits jobs in groups, in a thread; a group is whatever arrived while the one before was being committed."""

    def __init__(
        self, settings: QueueSettings, sessions: Sessions, artifacts: Artifacts, submission: Submission
    ) -> None:
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._sessions = sessions
        self._artifacts = artifacts
        self._submission = submission
        self._pending: list[Pending] = []
        self._committer: asyncio.Task[None] | None = None
        self._room = Room(settings.queued_jobs_limit)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="group-commit")

    async def submit(self, submitted: Submitted) -> Accepted:
        """The new job, whose row is committed, or the one that its idempotency key stands for.

        Raises QueueFull (429) over the client's limit, IdempotencyKeyReused (422), DatabaseUnavailable (503), StoreFull
        (507).
        """
        future: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._pending.append((submitted, future))
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all())
        return await future

    async def close(self) -> None:
        if self._committer is not None:
            await asyncio.gather(self._committer, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def _commit_all(self) -> None:
        loop = asyncio.get_running_loop()
        while self._pending:
            group, self._pending = self._pending[:MOST_AT_ONCE], self._pending[MOST_AT_ONCE:]
            try:
                accepted, laid_out = await loop.run_in_executor(self._thread, self._commit, [one for one, _ in group])
            except Exception as error:  # noqa: BLE001 - the task's edge: whatever went wrong, each caller must be told
                for _, future in group:
                    if not future.done():
                        future.set_exception(error)
                continue
            self._lay_out(laid_out)
            for (_, future), answer in zip(group, accepted, strict=True):
                if future.done():
                    continue
                if isinstance(answer, SluiceError):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    def _commit(self, group: Sequence[Submitted]) -> tuple[list[Answer], list[tuple[Lane, int]]]:
        """In the thread: write large inputs to the store, then all rows in one transaction."""
        drafts = [self._draft(submitted) for submitted in group]
        claims = [
            submitted.keyed.claim(draft.id)
            for draft, submitted in zip(drafts, group, strict=True)
            if submitted.keyed is not None
        ]
        with transaction(self._sessions) as session:
            self._room.begin_group()
            answers = settle(session, claims) if claims else {}
            kept: list[jobs.Draft] = []
            for draft, submitted in zip(drafts, group, strict=True):
                if draft.id in answers:
                    continue
                refusal = submitted.late or self._room.take(session, submitted)
                if refusal is None:
                    kept.append(draft)
                else:
                    answers[draft.id] = refusal
            if claims and len(kept) < len(drafts):
                withdraw(session, claims, answers)
            limit = ahead_limit(max(one.max_batch for one in group))
            created_at, laid_out = jobs.accept_at(session, kept, limit) if kept else (None, [])
            answers |= {draft.id: Accepted(draft.id, created_at=created_at) for draft in kept}
            note_addresses(session, _addresses(drafts, group, kept))
        if len(kept) < len(drafts):
            self._forget(drafts, kept)
        return [answers[draft.id] for draft in drafts], laid_out

    def _draft(self, submitted: Submitted) -> jobs.Draft:
        job_id, body = jobs.new_id(), submitted.body
        terms = submitted.terms or Terms(self._settings.job_seconds)
        name = jobs.input_name(job_id)
        stored = len(body) > self._settings.inline_bytes
        if stored:
            self._artifacts.put_payload(name, body)
        return jobs.Draft(
            job_id,
            submitted.lane,
            submitted.dialect,
            submitted.instances,
            None if stored else self._artifacts.sealed(name, body),
            terms.job_seconds,
            submitted.authority,
            max_attempts=terms.max_attempts,
            input_digest=hashlib.sha256(restored(body, 0).data).digest(),
            waits=submitted.waits,
            notifies=submitted.notifies,
        )

    def _forget(self, drafts: Sequence[jobs.Draft], kept: Sequence[jobs.Draft]) -> None:
        # No row will ever name them: a client over its limit could fill the disk.
        accepted = {draft.id for draft in kept}
        for draft in drafts:
            if draft.input is None and draft.id not in accepted:
                self._artifacts.delete_payload(jobs.input_name(draft.id))

    def _lay_out(self, placed: Sequence[tuple[Lane, int]]) -> None:
        by_lane: dict[Lane, list[bytes]] = {}
        for lane, number in placed:
            by_lane.setdefault(lane, []).append(pack("XADD", self._keys.lane(lane), "*", JOB_FIELD, number))
        for lane, entries in by_lane.items():
            self._submission.add_jobs(lane, entries)


def _addresses(
    drafts: Sequence[jobs.Draft], group: Sequence[Submitted], kept: Sequence[jobs.Draft]
) -> list[tuple[str, str]]:
    """The webhooks that accepted jobs' submits named, each with its job's id."""
    named = [(draft.id, one.webhook) for draft, one in zip(drafts, group, strict=True) if one.webhook is not None]
    accepted = {draft.id for draft in kept} if named else set()
    return [(job_id, url) for job_id, url in named if job_id in accepted]


def _full(counted: Counted, most: int) -> QueueFull:
    model = counted[1] or ""
    where = f" for {model}" if model else ""
    text = f"{most} jobs of this client{where} wait already; try again when some are done"
    if most == 0:
        text = f"this client may submit no jobs{where}"
    error = QueueFull(text, retry_after_seconds=FULL_SECONDS)
    error.headers = refusal_headers(Policy(Kind.QUEUED, model, most), FULL_SECONDS)
    LIMITED.labels(Kind.QUEUED).inc()
    return error
