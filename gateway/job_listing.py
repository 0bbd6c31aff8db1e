"""Lists of jobs, the newest first, a page at a time; no page looks at more than a bounded number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from gateway.page_tokens import PageTokens
from workers import jobs
from workers.drafts import CHUNK
from workers.job_statements import DEAD
from workers.tables import Job

# Of jobs of all clients, of which any number may not be wanted.
MOST_LOOKED_AT = 10_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What jobs are looked for; None is any. `before` is when they ended at the latest."""

    client_id: str | None = None
    model: str | None = None
    version: int | None = None
    state: jobs.JobState | None = None
    kind: str | None = None
    error_code: str | None = None
    dead: bool | None = None
    replayed: bool | None = None
    before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """What a row has to be, but for its client."""
        found: list[ColumnElement[bool]] = [Job.kind != CHUNK]
        for column, value in (
            (Job.model, self.model),
            (Job.version, self.version),
            (Job.state, self.state),
            (Job.kind, self.kind),
            (Job.error_code, self.error_code),
        ):
            if value is not None:
                found.append(column == value)
        if self.dead is not None:
            found.append(Job.dead.is_(self.dead))
        if self.replayed is not None:
            found.append(Job.replayed_as.is_not(None) if self.replayed else Job.replayed_as.is_(None))
        if self.before is not None:
            found.append(Job.finished_at < int(self.before.timestamp() * 1000))
        return found


@dataclass(frozen=True, slots=True)
class Page:
    """Jobs, and where the next page begins; it may have none of those that are wanted and yet not be the last."""

    jobs: Sequence[Job]
    next_page_token: str | None


def page_of(
    session: Session,
    pages: PageTokens,
    wanted: Wanted,
    limit: int,
    page_token: str | None = None,
    most_looked_at: int = MOST_LOOKED_AT,
) -> Page:
    """The newest jobs that are wanted, after the page before; raises PageTokenInvalid."""
    below = pages.below(page_token)
    # How far back the rows go that may be looked at; then those among them that are wanted.
    looked = _newest(select(Job.number), wanted, 0, below).limit(most_looked_at).subquery()
    count, last = session.execute(select(func.count(), func.min(looked.c.number))).one()
    if not count:
        return Page((), None)
    found = _newest(select(Job), wanted, last, below).where(*wanted.conditions())
    rows = session.scalars(found.limit(limit + 1)).all()
    if len(rows) > limit:
        return Page(rows[:limit], pages.make(rows[limit - 1].number))
    return Page(rows, pages.make(last) if count == most_looked_at else None)


def _newest(asked: Select[Any], wanted: Wanted, since: int, below: int) -> Select[Any]:
    """Rows from one number up to another; one index gives each order: of clients, of dead letters, or their own."""
    found = asked.where(Job.number >= since, Job.number < below)
    if wanted.client_id is not None:
        # A range of one, as in workers/job_statements.py: else PostgreSQL may read all rows in the order of numbers.
        own = Job.client_id.between(wanted.client_id, wanted.client_id)
        return found.where(own).order_by(Job.client_id.desc(), Job.number.desc())
    return (found.where(DEAD) if wanted.dead else found).order_by(Job.number.desc())
