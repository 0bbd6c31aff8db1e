"""Questions about the jobs that ended from some moment on, in pages that cost the same whoever asks and whatever waits.

They go along the index of ends: a page is a piece of it with a bounded number of jobs of anybody, of which those of the
clients that are asked for are read.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from sqlalchemy import BindParameter, and_, bindparam, func, or_, select
from sqlalchemy.orm import Session

from workers.job_statements import RUNNING
from workers.tables import Job

PAGE_ENDS = 1000
MOST_RUNNING = 500


class Place(NamedTuple):
    """A place in the order of ends; `moment` is in milliseconds since 1970 by the database's clock."""

    moment: int
    number: int = 0


_CLIENTS: BindParameter[Sequence[str]] = bindparam("clients", expanding=True)
_IDS: BindParameter[Sequence[str]] = bindparam("ids", expanding=True)
# Not the column itself: its index would lead through all jobs of a client, of which most are not asked for.
_OF_CLIENTS = and_(func.coalesce(Job.client_id, "").in_(_CLIENTS), Job.kind != "chunk")
_AFTER = and_(
    Job.finished_at >= bindparam("moment"),
    or_(Job.finished_at > bindparam("moment"), Job.number > bindparam("number")),
)
_UP_TO = and_(
    Job.finished_at <= bindparam("last_moment"),
    or_(Job.finished_at < bindparam("last_moment"), Job.number <= bindparam("last_number")),
)
_ORDER = (Job.finished_at, Job.number)
_LAST_OF_PAGE = select(*_ORDER).where(_AFTER).order_by(*_ORDER).offset(bindparam("before_last")).limit(1)
_PAGE = select(Job).where(_AFTER, _UP_TO, _OF_CLIENTS).order_by(*_ORDER)
_REST = select(Job).where(_AFTER, _OF_CLIENTS).order_by(*_ORDER).limit(bindparam("most"))
# Here the index of ends would lead through all that ever ended.
_LONG_PAST = func.coalesce(Job.finished_at, bindparam("moment")) < bindparam("moment")
_LATE = select(Job).where(Job.id.in_(_IDS), _LONG_PAST, _OF_CLIENTS)
_RUNNING = select(Job).where(RUNNING, _OF_CLIENTS).order_by(Job.lease_until).limit(MOST_RUNNING)


def page(
    session: Session, clients: Collection[str], after: Place, most: int = PAGE_ENDS
) -> tuple[Sequence[Job], Place | None]:
    """The clients' jobs on one page of ends, in their order, and where the next page begins; None after the last."""
    asked = {"moment": after.moment, "number": after.number}
    last = session.execute(_LAST_OF_PAGE, asked | {"before_last": most - 1}).one_or_none()
    if last is not None:
        upto = Place(last.finished_at or 0, last.number)
        asked |= {"last_moment": upto.moment, "last_number": upto.number}
        return session.scalars(_PAGE, asked | {"clients": list(clients)}).all(), upto
    jobs = session.scalars(_REST, asked | {"clients": list(clients), "most": most}).all()
    # So many ended since the question before that there is another page now.
    full = len(jobs) == most
    return jobs, Place(jobs[-1].finished_at or 0, jobs[-1].number) if full else None


def late(session: Session, clients: Collection[str], ids: Sequence[str], before: int) -> Sequence[Job]:
    """Of jobs that are said to have ended just now, those whose end is written down as long past."""
    return session.scalars(_LATE, {"ids": ids, "moment": before, "clients": list(clients)}).all()


def running(session: Session, clients: Collection[str]) -> Iterator[Job]:
    """Some of the clients' jobs that run now: as many as there are, up to 500."""
    return iter(session.scalars(_RUNNING, {"clients": list(clients)}).all())
