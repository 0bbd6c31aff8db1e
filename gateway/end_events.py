"""What a client is told of its jobs: events, which of them a stream is for, and those that it has yet to send."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from dataclasses import dataclass

from gateway.event_frames import frame
from gateway.job_events import ENDS, event_name
from gateway.job_stamps import Stamp, stamp_of
from gateway.job_view import JobView, job_document
from workers.tables import Job

PASSING = ("job.running", "job.progress")
"""What can be told of jobs before their end."""
NAMES = (*PASSING, *ENDS)
QUEUE_EVENTS = 5000


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a job; `ended` is when, by the database's clock, and None where it was no end."""

    name: str
    number: int
    client_id: str
    model: str
    document: bytes
    ended: int | None
    stamp: Stamp

    def text(self, event_id: str | None) -> bytes:
        """As it is sent."""
        return frame(self.name, self.document, event_id)


def event_of(job: Job) -> Event:
    """The newest that there is to tell of a job; without its result, which its address has."""
    stamp = stamp_of(job.state, job.fence, job.done)
    document = job_document(JobView(job, None, None))
    name = event_name(job.state, stamp)
    return Event(name, job.number, job.client_id, job.model, document, job.finished_at, stamp)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events of a client's jobs a stream is for; no model is all of them."""

    client_id: str
    names: frozenset[str] = frozenset(ENDS)
    model: str | None = None

    @property
    def passing(self) -> bool:
        return not self.names.isdisjoint(PASSING)

    def includes(self, event: Event) -> bool:
        mine = event.client_id == self.client_id and event.name in self.names
        return mine and self.model in (None, event.model)


class Subscription:
    """One stream's place in the feed: what it has yet to send, up to a bound."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted = wanted
        self.overrun = False
        """Whether it fell so far behind that events were left out: it has to begin again from its cursor."""
        self._events: deque[Event] = deque()
        self._woken = asyncio.Event()

    def offer(self, event: Event) -> None:
        if not self.wanted.includes(event):
            return
        if len(self._events) >= QUEUE_EVENTS:
            self.overrun = True
        else:
            self._events.append(event)
        self._woken.set()

    def take(self) -> Event | None:
        """The next event, if there is one now."""
        return self._events.popleft() if self._events else None

    async def wait(self, seconds: float) -> None:
        """Until there is something to take, at most so long."""
        self._woken.clear()
        if not self._events and not self.overrun:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._woken.wait()
