"""A job in the Python client for asyncio: as `Job`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager

import httpx

from sluice.answers import Json
from sluice.async_event_reading import read_events_async
from sluice.async_link import AsyncLink
from sluice.calls import Calls, Prediction
from sluice.event_reading import PATIENCE_SECONDS, JobEvent
from sluice.exchange import Asked, ask_json
from sluice.job import KnownJob, event_stream, result_lines


class AsyncJob(KnownJob):
    """A job whose client uses asyncio. To iterate over it, with `async for`, is to iterate over its events."""

    def __init__(self, link: AsyncLink, calls: Calls, document: Json) -> None:
        super().__init__(document)
        self._link = link
        self._calls = calls

    async def look(self) -> Json:
        """As `Job.look`."""
        self.document = await self._link.run(self._calls.job(self.id))
        return self.document

    async def wait(self, seconds: float | None = None, *, patience_seconds: float | None = None) -> Json:
        """As `Job.wait`."""
        self.document = await self._link.run(self._calls.waited(self.id, seconds, patience_seconds))
        return self.document

    async def result(self, seconds: float | None = None, *, outputs: str | Sequence[str] | None = None) -> Prediction:
        """As `Job.result`."""
        if not self.ended:
            await self.wait(seconds)
        self.require_end(seconds)
        return await self._link.run(self._calls.result(self.document, outputs))

    async def events(self, *, patience_seconds: float = PATIENCE_SECONDS) -> AsyncIterator[JobEvent]:
        """As `Job.events`."""

        def connect(last_id: str | None) -> AbstractAsyncContextManager[httpx.Response]:
            return self._link.stream(event_stream(f"{self._path}/events", last_id))

        async for event in read_events_async(connect, patience_seconds=patience_seconds):
            self.document = event.job
            yield event
            if event.final:
                return

    def __aiter__(self) -> AsyncIterator[JobEvent]:
        return self.events()

    def lines(self, *, partial: bool = False) -> AsyncIterator[bytes]:
        """As `Job.lines`."""
        return self._link.download(result_lines(self._path, partial=partial))

    async def cancel(self) -> Json:
        """As `Job.cancel`."""
        self.document = await self._link.run(ask_json(Asked("POST", f"{self._path}/cancel")))
        return self.document
