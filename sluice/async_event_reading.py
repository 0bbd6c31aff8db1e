"""Reading events of jobs with asyncio, as `event_reading` does with threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import httpx

from sluice.answers import Refused, Unreachable
from sluice.event_reading import EventParser, JobEvent, Reading

AsyncConnect = Callable[[str | None], AbstractAsyncContextManager[httpx.Response]]
"""Opens a stream from the last id that was seen; raises Refused, Unreachable."""


async def read_events_async(
    connect: AsyncConnect, last_id: str | None = None, *, patience_seconds: float
) -> AsyncIterator[JobEvent]:
    """As `read_events`."""
    reading = Reading(last_id, patience_seconds)
    while True:
        pause = reading.seen.retry_seconds
        try:
            async with connect(reading.seen.last_id) as response:
                if response.status_code == 204:
                    return
                parser = EventParser(reading.seen)
                async for line in response.aiter_lines():
                    event = parser.feed(line)
                    if event is not None and reading.is_new(event):
                        yield event
                reading.came()
        except (httpx.HTTPError, Unreachable, Refused) as error:
            pause = reading.pause_after(error)
        await asyncio.sleep(pause)
