"""A stream of everything that happens to a client's jobs: first what it missed, then what comes.

An end is told at least once, whatever gateway the reader comes back to: what it is given as the last id is a time of
the database's clock before which, but for the overlap, it has been told everything. So it begins that overlap earlier.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from gateway.end_events import Event, Subscription, Wanted
from gateway.end_feed import OVERLAP_MILLISECONDS, EndFeed
from gateway.ended_jobs import Place
from gateway.event_frames import LastEventIdInvalid, mark
from gateway.event_streams import TICK_SECONDS, Source
from model_store.errors import DatabaseUnavailable

MARK_TICKS = 15
"""After so many ticks without an event, the reader is given a newer id: it need not begin long ago."""


def cursor_of_id(text: str | None) -> int | None:
    """The time that an id stands for; raises LastEventIdInvalid."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise LastEventIdInvalid
    return int(text)


async def client_events(feed: EndFeed, wanted: Wanted, seen: int | None, now: int) -> Source:
    """The source of a client's stream; `seen` is what the reader's last id stands for, None for one who has none.

    `now` is the database's clock in milliseconds since 1970.
    """
    reader = _Reader(feed, wanted, seen, now)
    yield mark(reader.event_id)
    if seen is not None:
        # What may be long is read before the place in the feed is taken, where it would run over.
        async for text in reader.missed():
            yield text
    with feed.subscription(wanted) as subscription:
        if seen is not None:
            async for text in reader.missed():
                yield text
        async for text in reader.coming(subscription):
            yield text


class _Reader:
    """What one reader has been told."""

    def __init__(self, feed: EndFeed, wanted: Wanted, seen: int | None, now: int) -> None:
        self._feed = feed
        self._wanted = wanted
        # A clock that was set back has not come to what the reader has seen.
        self._cursor = now if seen is None else min(seen, now)
        self._least = self._cursor if seen is None else self._cursor - OVERLAP_MILLISECONDS
        self._told: dict[int, int] = {}

    @property
    def event_id(self) -> str:
        return str(self._cursor)

    async def missed(self) -> AsyncGenerator[bytes | None]:
        """Ends from before the cursor up to now, as slowly as they are read."""
        after: Place | None = Place(self._cursor - OVERLAP_MILLISECONDS)
        upto: int | None = None
        while after is not None:
            try:
                upto = await self._feed.now() if upto is None else upto
                events, after = await self._feed.page(self._wanted.client_id, after)
            except DatabaseUnavailable:
                await asyncio.sleep(TICK_SECONDS)
                events = []
            yield None
            for event in events:
                if self._is_new(event, upto or 0):
                    yield self._text(event)
        self._cursor = max(self._cursor, upto or 0)
        # What the feed may yet hand out once more is remembered.
        oldest = self._cursor - 2 * OVERLAP_MILLISECONDS
        self._told = {number: ended for number, ended in self._told.items() if ended > oldest}

    async def coming(self, subscription: Subscription) -> AsyncGenerator[bytes | None]:
        """What the feed hands out, until the reader falls too far behind."""
        quiet_ticks = 0
        while not subscription.overrun:
            event = subscription.take()
            if event is not None:
                quiet_ticks = 0
                if event.ended is None or (event.ended >= self._least and event.number not in self._told):
                    yield self._text(event)
                continue
            quiet_ticks += 1
            if quiet_ticks % MARK_TICKS == 0 and self._feed.position is not None:
                # Nothing is left of what was handed out up to there.
                self._cursor = max(self._cursor, self._feed.position)
                yield mark(self.event_id)
            else:
                yield None
            await subscription.wait(TICK_SECONDS)

    def _is_new(self, event: Event, upto: int) -> bool:
        """Whether an end that was missed is one for this reader, and was not told just now; it is noted as told.

        But not one of long before `upto`: nobody comes past it again, and there may be a million of them.
        """
        new = event.number not in self._told and self._wanted.includes(event)
        ended = event.ended or 0
        if ended > upto - 2 * OVERLAP_MILLISECONDS:
            self._told[event.number] = ended
        return new

    def _text(self, event: Event) -> bytes:
        if event.ended is None:
            return event.text(None)
        self._cursor = max(self._cursor, event.ended)
        return event.text(self.event_id)
