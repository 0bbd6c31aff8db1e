"""The work of preparing versions as rows: due at a time, held under a lease, fenced like a job.

A row changes only here, each time by a conditional write that says whether it happened. Only the clock of the database
counts.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session
from sqlalchemy.sql.elements import ColumnElement

from model_store.database import now_ms
from workers.tables import Preparation

LEASE_SECONDS = 30.0
RENEW_SECONDS = 10.0
ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to prepare one version, as long as nobody else holds a higher fence; `attempt` counts from 1.

    `policy` is what to prepare with, in JSON, where the version serves and is prepared again.
    """

    model: str
    version: int
    fence: int
    attempt: int
    policy: str | None = None

    @property
    def again(self) -> bool:
        return self.policy is not None


def create(session: Session, model: str, number: int) -> None:
    """Lays out the work for a version just published; it is due at once."""
    session.add(Preparation(model=model, version=number))
    session.flush()


def repeat(session: Session, model: str, number: int, policy: str) -> bool:
    """Lays out the work once more, due at once, with a variant policy in JSON; False where it is not done yet."""
    waiting = select(Preparation.done).where(Preparation.model == model, Preparation.version == number)
    if session.scalar(waiting.with_for_update()) is None:
        session.add(Preparation(model=model, version=number, policy=policy))
        session.flush()
        return True
    return (
        session.execute(
            update(Preparation)
            .where(Preparation.model == model, Preparation.version == number, Preparation.done.is_(True))
            .values(done=False, attempt=0, step="receive", next_at=now_ms(), lease_until=None, policy=policy)
            .returning(Preparation.fence)
            .execution_options(synchronize_session=False)
        ).one_or_none()
        is not None
    )


def due(session: Session, limit: int) -> list[tuple[str, int]]:
    """Versions, the longest waiting first, whose preparation may start now: nobody holds them."""
    rows = session.execute(
        select(Preparation.model, Preparation.version).where(*_is_due()).order_by(Preparation.next_at).limit(limit)
    )
    return [(model, version) for model, version in rows]


def claim(session: Session, model: str, number: int) -> Claim | None:
    """Takes the work for LEASE_SECONDS; None where it is done, not due, or held by a worker that lives."""
    row = session.execute(
        update(Preparation)
        .where(Preparation.model == model, Preparation.version == number, *_is_due())
        .values(
            fence=Preparation.fence + 1,
            attempt=Preparation.attempt + 1,
            lease_until=now_ms() + _milliseconds(LEASE_SECONDS),
        )
        .returning(Preparation.fence, Preparation.attempt, Preparation.policy)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    return None if row is None else Claim(model, number, row.fence, row.attempt, row.policy)


def renew(session: Session, held: Claim) -> bool:
    """Extends the lease; False where the work was taken over or is gone."""
    return _write(session, held, lease_until=now_ms() + _milliseconds(LEASE_SECONDS))


def step(session: Session, held: Claim, name: str) -> bool:
    """Says what is being done now; False where the work was taken over or is gone."""
    return _write(session, held, step=name)


def finish(session: Session, held: Claim) -> bool:
    """Ends the work for good; False, and nothing may be written about the version, where it was taken over."""
    return _write(session, held, done=True, lease_until=None)


def postpone(session: Session, held: Claim, seconds: float) -> bool:
    """Gives the work back, due again later, without counting the attempt: what stopped it was not the upload."""
    return _write(session, held, lease_until=None, attempt=held.attempt - 1, next_at=now_ms() + _milliseconds(seconds))


def _is_due() -> tuple[ColumnElement[bool], ...]:
    free = or_(Preparation.lease_until.is_(None), Preparation.lease_until < now_ms())
    return Preparation.done.is_(False), Preparation.next_at <= now_ms(), free


def _write(session: Session, held: Claim, **values: object) -> bool:
    written = session.execute(
        update(Preparation)
        .where(
            Preparation.model == held.model,
            Preparation.version == held.version,
            Preparation.fence == held.fence,
            Preparation.done.is_(False),
        )
        .values(**values)
        .returning(Preparation.fence)
        .execution_options(synchronize_session=False)
    )
    return written.one_or_none() is not None


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
