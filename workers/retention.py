"""How long ended jobs stay: as the settings say, or as a client's own limit does; and what is swept after them.

Each page looks at a bounded number of rows, the oldest first, and is a transaction of its own. With a job go its input,
its result, and the files of all its attempts.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session

from auth.limit_tables import ClientLimit
from auth.limits import EVERYTHING
from model_store.artifacts import Artifacts
from model_store.database import Sessions, clock_ms, transaction
from model_store.payloads import old_payloads
from workers.erasure import Erased, delete_stored, erase
from workers.job_statements import DEAD
from workers.settings import QueueSettings
from workers.tables import Job

PAGE_ROWS = 500
# Times of clients' own are looked after for so many clients a run; the next run goes on behind them.
CLIENTS_A_RUN = 100
PAYLOADS_A_RUN = 20_000
# Payloads that belong to no row are younger than this while their job is being accepted.
ACCEPT_SECONDS = 3600.0

_PAYLOAD = re.compile(r"([A-Za-z0-9_-]{1,64})\.(?:input|([0-9]{1,9})\.result)")
_WANTED = (Job.number, Job.finished_at)
# A chunk goes with its file, which may be read on after a day without a background worker.
_WHOLE = Job.parent.is_(None)
_OWN_TIME = exists().where(
    ClientLimit.client_id == Job.client_id, ClientLimit.model == EVERYTHING, ClientLimit.job_keep_seconds.is_not(None)
)

Page = Callable[[Session], tuple[Erased, bool]]
"""Purges in a transaction; returns what the store may hold of it, and whether more may be due."""


@dataclass(frozen=True, slots=True)
class Kept:
    """For how long: jobs, and dead letters, which somebody may want to replay."""

    job_seconds: float
    dead_seconds: float

    @classmethod
    def by(cls, settings: QueueSettings) -> Kept:
        return cls(settings.job_keep_seconds, max(settings.dead_letter_keep_seconds, settings.job_keep_seconds))


class Retention:
    """What the dispatcher's process purges, and how far it came."""

    def __init__(self, sessions: Sessions, artifacts: Artifacts, kept: Kept) -> None:
        self._sessions = sessions
        self._artifacts = artifacts
        self._kept = kept
        self._after_client = ""
        self._looked_until = 0
        self._payloads_seen = 0

    def purge(self, most_pages: int) -> bool:
        """Forget jobs that were kept long enough, so many pages of each kind; returns whether that was all of them."""
        pages: list[Page] = [self._ended, functools.partial(purge_dead, keep_seconds=self._kept.dead_seconds)]
        with transaction(self._sessions, write=False) as session:
            own = own_times(session, self._after_client)
        pages += [functools.partial(purge_client, client_id=one, keep_seconds=seconds) for one, seconds in own]
        self._after_client = own[-1][0] if len(own) == CLIENTS_A_RUN else ""
        # Each kind has its turn, whatever another one has left to do.
        done = [self._run(page, most_pages) for page in pages]
        return all(done)

    def sweep_store(self) -> int:
        """Delete payloads whose job is gone, or that a lost attempt left behind; returns how many.

        A run looks at a bounded number of them, and the next one goes on behind these.
        """
        # From the beginning again: a client's own time may have been lifted, and clocks may have been set.
        self._looked_until = 0
        old = old_payloads(self._artifacts, ACCEPT_SECONDS)
        names = list(itertools.islice(old, self._payloads_seen, self._payloads_seen + PAYLOADS_A_RUN))
        removed = 0
        for start in range(0, len(names), PAGE_ROWS):
            with transaction(self._sessions, write=False) as session:
                orphans = orphaned(session, names[start : start + PAGE_ROWS])
            for name in orphans:
                self._artifacts.delete_payload(name)
            removed += len(orphans)
        self._payloads_seen = self._payloads_seen + len(names) - removed if len(names) == PAYLOADS_A_RUN else 0
        return removed

    def _run(self, page: Page, most_pages: int) -> bool:
        for _ in range(most_pages):
            with transaction(self._sessions) as session:
                erased, more = page(session)
            delete_stored(self._artifacts, erased)
            if not more:
                return True
        return False

    def _ended(self, session: Session) -> tuple[Erased, bool]:
        # What stays behind belongs to clients with a time of their own, and is not to be looked at again and again.
        erased, self._looked_until, more = purge_ended(session, self._kept.job_seconds, self._looked_until)
        return erased, more


def own_times(session: Session, after: str) -> list[tuple[str, int]]:
    """Clients with a time of their own, in the order of their ids, and their seconds."""
    found = (
        select(ClientLimit.client_id, ClientLimit.job_keep_seconds)
        .where(
            ClientLimit.model == EVERYTHING, ClientLimit.job_keep_seconds.is_not(None), ClientLimit.client_id > after
        )
        .order_by(ClientLimit.client_id)
        .limit(CLIENTS_A_RUN)
    )
    return [(client_id, seconds or 0) for client_id, seconds in session.execute(found)]


def purge_ended(session: Session, keep_seconds: float, since: int) -> tuple[Erased, int, bool]:
    """A page of jobs that ended after the moment `since` and are old enough: neither dead, nor of a client with a time
    of its own. Returns what the store holds of them, up to where it looked, and whether there may be more."""
    until = _moment(session, keep_seconds)
    due = Job.finished_at.between(since, until - 1), ~Job.dead, ~_OWN_TIME, _WHOLE
    rows = session.execute(select(*_WANTED).where(*due).order_by(Job.finished_at).limit(PAGE_ROWS)).all()
    erased = _forget(session, rows)
    more = len(rows) == PAGE_ROWS
    return erased, rows[-1].finished_at if more else max(since, until), more


def purge_dead(session: Session, keep_seconds: float) -> tuple[Erased, bool]:
    """Of a page of the oldest dead letters, those that are old enough; of clients without a time of their own."""
    oldest = select(*_WANTED).where(DEAD, Job.finished_at.is_not(None), ~_OWN_TIME, _WHOLE).order_by(Job.number)
    return _purge_oldest(session, oldest, keep_seconds)


def purge_client(session: Session, client_id: str, keep_seconds: float) -> tuple[Erased, bool]:
    """Of a page of a client's oldest ended jobs, dead letters or not, those that are old enough."""
    # A range of one, as in workers/job_statements.py: only the index of clients gives this order.
    own = Job.client_id.between(client_id, client_id), Job.finished_at.is_not(None), _WHOLE
    oldest = select(*_WANTED).where(*own).order_by(Job.client_id, Job.number)
    return _purge_oldest(session, oldest, keep_seconds)


def orphaned(session: Session, names: Sequence[str]) -> list[str]:
    """Of these payloads, those that no job refers to, nor will."""
    parsed = {name: found for name in names if (found := _PAYLOAD.fullmatch(name))}
    ids = {found[1] for found in parsed.values()}
    jobs_of = {
        row.id: row for row in session.execute(select(Job.id, Job.fence, Job.finished_at).where(Job.id.in_(ids)))
    }
    return [name for name in names if name not in parsed or _is_orphan(parsed[name], jobs_of)]


def _is_orphan(found: re.Match[str], jobs_of: dict[str, Any]) -> bool:
    job = jobs_of.get(found[1])
    if job is None:
        return True
    return found[2] is not None and job.finished_at is not None and int(found[2]) != job.fence


def _purge_oldest(session: Session, oldest: Select[*tuple[Any, ...]], keep_seconds: float) -> tuple[Erased, bool]:
    # The oldest first and only then how old they are: the other way round, whatever is kept would be looked at.
    until = _moment(session, keep_seconds)
    rows = [row for row in session.execute(oldest.limit(PAGE_ROWS)).all() if row.finished_at < until]
    return _forget(session, rows), len(rows) == PAGE_ROWS


def _forget(session: Session, rows: Sequence[Any]) -> Erased:
    # Webhooks may take a day to be told; they have a time of their own.
    return erase(session, [row.number for row in rows], untold=False) if rows else Erased((), ())


def _moment(session: Session, seconds: float) -> int:
    return clock_ms(session) - int(seconds * 1000)
