"""Bounds on running jobs: how many more of a client's jobs may be laid out, so that no more of them run at once.

The dispatcher alone lays out jobs of a client that has such a bound, so what is laid out and what runs together are the
most that can run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from workers.drafts import FILE
from workers.job_statements import RUNNING
from workers.tables import Job, LaneCount

RunningBounds = Mapping[tuple[str, str], int]
"""The most running jobs of a client on a model, or ('') on all; who has no bound is not in it."""

ALL = ""


class RunningRoom:
    """What of the bounds is left, counted down as jobs are laid out."""

    def __init__(self, bounds: RunningBounds, used: Counter[tuple[str, str]]) -> None:
        self._bounds = bounds
        self._used = used

    def left(self, client_id: str, model: str) -> int | None:
        """How many more jobs of a client for a model may be laid out; None where there is no bound."""
        left = [self._bounds[place] - self._used[place] for place in _places(client_id, model) if place in self._bounds]
        return max(0, min(left)) if left else None

    def take(self, client_id: str, model: str, jobs: int) -> None:
        """So many were laid out."""
        for place in _places(client_id, model):
            self._used[place] += jobs


def room(session: Session, bounds: RunningBounds, lanes: Sequence[LaneCount]) -> RunningRoom:
    """The room of the lanes' clients; nothing is asked where none of them has a bound."""
    clients = {count.client_id for count in lanes} & {client_id for client_id, _ in bounds}
    return RunningRoom(bounds, _used(session, clients) if clients else Counter())


def _used(session: Session, clients: Collection[str]) -> Counter[tuple[str, str]]:
    """Laid out and running jobs of clients by model, and together.

    What is laid out is asked first: a job that is claimed in between counts twice for a moment, rather than not at all.
    """
    laid_out = (
        select(LaneCount.client_id, LaneCount.model, func.sum(LaneCount.queued - LaneCount.waiting))
        .where(LaneCount.client_id.in_(clients), LaneCount.queued > LaneCount.waiting)
        .group_by(LaneCount.client_id, LaneCount.model)
    )
    # A file does not run itself: its chunks do.
    running = (
        select(Job.client_id, Job.model, func.count())
        .where(RUNNING, Job.client_id.in_(clients), Job.kind != FILE)
        .group_by(Job.client_id, Job.model)
    )
    used: Counter[tuple[str, str]] = Counter()
    for question in (laid_out, running):
        for client_id, model, jobs in session.execute(question):
            used[client_id, model] += int(jobs)
            used[client_id, ALL] += int(jobs)
    return used


def _places(client_id: str, model: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return (client_id, ALL), (client_id, model)
