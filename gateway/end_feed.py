"""The ends of jobs as they come, read once for all streams of this gateway and handed out in memory.

One poller, which runs while somebody listens, goes along the index of ends, woken by Redis. Transactions do not become
visible in the order of the times that they wrote: each look begins a little before the end of the last one, every ten
seconds one begins `OVERLAP_SECONDS` before it, and what was handed out is remembered for that long. An end that became
visible later still is found where Redis names its job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterator, Sequence

from gateway import ended_jobs
from gateway.end_events import Event, Subscription, Wanted, event_of
from gateway.ended_jobs import Place
from gateway.job_stamps import Stamp
from model_store.database import Sessions, clock_ms, transaction
from model_store.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
LEAST_SECONDS_BETWEEN_LOOKS = 0.2
NEAR_MILLISECONDS = 2000
OVERLAP_SECONDS = 30
OVERLAP_MILLISECONDS = OVERLAP_SECONDS * 1000
FAR_LOOK_SECONDS = 10.0
MOST_TOLD = 500
# Pages for readers that come back, at a time: they may have missed days, and others wait for the threads as well.
MOST_CATCHING_UP = 2


class EndFeed:
    """Hands out what happens to the jobs of those who listen. Used on one event loop."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._subscriptions: set[Subscription] = set()
        self._task: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._told: list[str] = []
        self._catching_up = asyncio.Semaphore(MOST_CATCHING_UP)
        # Ends up to here were handed out, by the database's clock; None before the first look.
        self.position: int | None = None
        self._given: dict[int, int] = {}
        self._stood: dict[int, Stamp] = {}

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @contextlib.contextmanager
    def subscription(self, wanted: Wanted) -> Iterator[Subscription]:
        """What happens from now on is offered to it."""
        made = Subscription(wanted)
        self._subscriptions.add(made)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look_while_somebody_listens())
        try:
            yield made
        finally:
            self._subscriptions.discard(made)

    def ended(self, ids: Sequence[str]) -> None:
        """These jobs are said to have ended."""
        if self._subscriptions:
            self._told += ids[: MOST_TOLD - len(self._told)]
            self._woken.set()

    async def now(self) -> int:
        """The database's clock in milliseconds since 1970; raises DatabaseUnavailable."""
        return await asyncio.to_thread(self._clock)

    async def page(self, client_id: str, after: Place) -> tuple[list[Event], Place | None]:
        """A page of ends of a client's jobs, and where the next one begins; None after the last.

        Raises DatabaseUnavailable.
        """
        async with self._catching_up:
            return await asyncio.to_thread(self._page, [client_id], after, ())

    async def _look_while_somebody_listens(self) -> None:
        self.position, self._given, self._stood, self._told = None, {}, {}, []
        looked_at = time.monotonic() - LOOK_SECONDS
        far_at = looked_at + FAR_LOOK_SECONDS
        while self._subscriptions:
            await self._wait(looked_at)
            looked_at = time.monotonic()
            far = looked_at >= far_at
            try:
                await self._look(far=far)
            except DatabaseUnavailable:
                continue
            except Exception:  # the task's edge: nobody would hear of anything any more
                log.exception("ends of jobs could not be looked up")
                continue
            if far:
                far_at = looked_at + FAR_LOOK_SECONDS

    async def _wait(self, looked_at: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self._woken.wait()
        # However many jobs end: what came meanwhile is found in one look.
        await asyncio.sleep(max(looked_at + LEAST_SECONDS_BETWEEN_LOOKS - time.monotonic(), 0))
        self._woken.clear()

    async def _look(self, *, far: bool) -> None:
        clients = {one.wanted.client_id for one in self._subscriptions}
        told, self._told = self._told, []
        now = await self.now()
        # A clock that was set back must not hide what ends by the new one.
        position = now if self.position is None else min(self.position, now)
        begin = position - (OVERLAP_MILLISECONDS if far else NEAR_MILLISECONDS)
        after: Place | None = Place(begin)
        while after is not None:
            events, after = await asyncio.to_thread(self._page, clients, after, self._given)
            self._hand_out(events)
        if told:
            self._hand_out(await asyncio.to_thread(self._late, clients, told, begin))
        passing = {one.wanted.client_id for one in self._subscriptions if one.wanted.passing}
        if passing:
            self._hand_out_passing(await asyncio.to_thread(self._running, passing))
        self.position = now
        forgotten = now - 2 * OVERLAP_MILLISECONDS
        self._given = {number: ended for number, ended in self._given.items() if ended > forgotten}

    def _hand_out(self, events: Sequence[Event]) -> None:
        for event in events:
            if event.number not in self._given:
                self._given[event.number] = event.ended or 0
                self._offer(event)

    def _hand_out_passing(self, events: Sequence[Event]) -> None:
        before, self._stood = self._stood, {event.number: event.stamp for event in events}
        for event in events:
            if before.get(event.number) != event.stamp:
                self._offer(event)

    def _offer(self, event: Event) -> None:
        for subscription in self._subscriptions:
            subscription.offer(event)

    def _clock(self) -> int:
        with transaction(self._sessions, write=False) as session:
            return clock_ms(session)

    def _page(self, clients: Collection[str], after: Place, given: Collection[int]) -> tuple[list[Event], Place | None]:
        with transaction(self._sessions, write=False) as session:
            jobs, following = ended_jobs.page(session, clients, after)
        return [event_of(job) for job in jobs if job.number not in given], following

    def _late(self, clients: Collection[str], ids: Sequence[str], before: int) -> list[Event]:
        with transaction(self._sessions, write=False) as session:
            return [event_of(job) for job in ended_jobs.late(session, clients, ids, before)]

    def _running(self, clients: Collection[str]) -> list[Event]:
        with transaction(self._sessions, write=False) as session:
            return [event_of(job) for job in ended_jobs.running(session, clients)]
