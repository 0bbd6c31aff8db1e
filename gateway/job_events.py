"""What there is to tell of one job: events, made up from its row alone.

An event's id is where the row stood, so that any gateway can tell what somebody has seen who read at another; there is
no table of events. What a job passed through between two looks is not told: its row has forgotten it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.event_frames import frame
from gateway.event_streams import TICK_SECONDS, Source
from gateway.job_stamps import Stamp, stamp_of
from gateway.job_view import JobView, job_document
from gateway.job_watch import JobWatch
from model_store.errors import DatabaseUnavailable
from workers.errors import JobNotFound
from workers.jobs import FINAL

ENDS = tuple(f"job.{state.value}" for state in FINAL)
"""The events of a job's end."""
START = Stamp(-1, 0, 0)
"""Of one who has seen nothing."""


def event_name(state: str, stamp: Stamp) -> str:
    """`job.` and the state; a job in the queue for another time is retrying, one that has done a part progresses."""
    if stamp.order == 0 and stamp.fence > 0:
        return "job.retrying"
    return "job.progress" if stamp.order == 1 and stamp.done > 0 else f"job.{state}"


def stamp(found: JobView) -> Stamp:
    """Where the job stood when it was looked up."""
    return stamp_of(found.job.state, found.job.fence, found.job.done)


async def job_events(watch: JobWatch, job_id: str, look: Callable[[], JobView], seen: Stamp | None) -> Source:
    """The source of one job's stream: what is newer than what was seen, until it has ended or is gone.

    `look` is called in a thread, and raises JobNotFound and DatabaseUnavailable.
    """
    known = START if seen is None else seen
    with watch.watching(job_id, known) as watcher:
        while True:
            try:
                found = await watch.looks.take(look)
            except JobNotFound:
                return
            except DatabaseUnavailable:
                await asyncio.sleep(TICK_SECONDS)
                yield None
                continue
            where = stamp(found)
            if where > known:
                yield frame(event_name(found.job.state, where), job_document(found), where.event_id)
                watcher.known = known = where
            if found.ended:
                return
            while not await watcher.wait(TICK_SECONDS):
                yield None
