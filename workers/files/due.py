"""Which files are to be read next, fairly over clients; and what is purged with the jobs that are gone."""

from __future__ import annotations

import time
from collections.abc import Callable

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from model_store.artifacts import Artifacts
from model_store.database import Sessions, now_ms, transaction
from model_store.files import delete_file
from workers.drafts import FILE, NO_LANE
from workers.files import keeping
from workers.job_statements import RUNNING, in_lane
from workers.publisher import Publisher
from workers.tables import Job

MOST_DUE = 100
MOST_SENT = 1000
# Messages wait where all background workers are busy or away: one for each file, however long that takes.
AGAIN_SECONDS = 30.0
PAGES_A_RUN = 10


Due = tuple[int, int]
"""A file's number and fence: one that was given back since is another."""


class DueFiles:
    """What the dispatcher's process does for files."""

    def __init__(self, most_running: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_running = most_running
        self._clock = clock
        self._sent: dict[Due, float] = {}

    def send(self, sessions: Sessions, publisher: Publisher) -> None:
        """Have the files read that are due; a message that is lost is sent again after half a minute."""
        with transaction(sessions, write=False) as session:
            found = due(session, self._most_running, MOST_DUE)
        now = self._clock()
        if len(self._sent) > MOST_SENT:
            self._sent = {one: at for one, at in self._sent.items() if now - at < AGAIN_SECONDS}
        for one in found:
            if now - self._sent.get(one, float("-inf")) >= AGAIN_SECONDS:
                self._sent[one] = now
                publisher.read_file(one[0])

    def purge(self, sessions: Sessions, artifacts: Artifacts) -> None:
        """Forget files past their time and those whose job is gone."""
        for _ in range(PAGES_A_RUN):
            with transaction(sessions) as session:
                gone, names = keeping.purge(session)
            for name in names:
                delete_file(artifacts, name)
            if gone < keeping.PAGE_ROWS:
                return


def due(session: Session, most_running: int, most: int) -> list[Due]:
    """The oldest queued files that may be claimed now: first one of each client, then the second ones.

    Of a client no more than may be read at a time, with those that are.
    """
    counted = (
        select(Job.client_id, func.count().label("files")).where(RUNNING, Job.kind == FILE).group_by(Job.client_id)
    )
    running = {found.client_id: found.files for found in session.execute(counted)}
    turn = func.row_number().over(partition_by=Job.client_id, order_by=Job.number).label("turn")
    full = [client_id for client_id, count in running.items() if count >= most_running]
    waiting = in_lane(NO_LANE), Job.not_before <= now_ms(), Job.client_id.not_in(full)
    queued = select(Job.number, Job.fence, Job.client_id, turn).where(*waiting).subquery()
    firsts = select(queued).where(queued.c.turn <= most_running).order_by(queued.c.turn, queued.c.number).limit(most)
    rows = session.execute(firsts).all()
    return [
        (number, fence) for number, fence, client_id, place in rows if place + running.get(client_id, 0) <= most_running
    ]
