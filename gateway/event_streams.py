"""Streams of events that a gateway has open: how many, how long, and for whom still.

A stream ends with the rights that opened it. Nothing waits in memory for a slow reader: a stream writes when the
connection takes more (gateway/connections.py cuts those that take nothing), and a source keeps a bounded number.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from gateway.event_frames import BEGINNING, HEARTBEAT, MEDIA_TYPE
from gateway.settings import GatewaySettings
from model_store.errors import SluiceError
from monitoring.metrics import EVENT_STREAMS

TICK_SECONDS = 1.0
"""How often a source that has nothing to tell says so: then rights, time and the end of the process are looked at."""
HEARTBEAT_SECONDS = 15.0
# Nginx keeps an answer until it has a buffer full, unless it is told not to.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}

Source = AsyncGenerator[bytes | None]
"""What a stream sends, in whole events; None at every tick without one. It ends with the last event."""


class TooManyStreams(SluiceError):
    status = 429
    code = "too_many_streams"


class StreamsExhausted(SluiceError):
    status = 503
    code = "streams_exhausted"


class EventStreams:
    """The open streams of a gateway. Used on one event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._open: Counter[str] = Counter()
        self._stopping = False

    def stop(self) -> None:
        """The gateway comes to its end: so does every stream, within a tick, and its reader goes on at another."""
        self._stopping = True

    def stream(self, client_id: str, source: Source, still_admitted: Callable[[], bool]) -> EventStream:
        """The answer that sends a source's events for as long as it may; its client is counted while it lasts.

        When it is sent, it raises TooManyStreams (429) and StreamsExhausted (503) in the place of an answer.
        """
        return EventStream(self._place(client_id), self._lasting(source, still_admitted))

    @contextlib.contextmanager
    def _place(self, client_id: str) -> Iterator[None]:
        most, most_of_client = self._settings.streams, self._settings.streams_per_client
        if self._open[client_id] >= most_of_client:
            raise TooManyStreams(
                f"this client has {most_of_client} streams of events open here; close one", retry_after_seconds=5
            )
        if self._stopping or self._open.total() >= most:
            raise StreamsExhausted("there are too many streams of events", retry_after_seconds=5)
        self._open[client_id] += 1
        EVENT_STREAMS.inc()
        try:
            yield
        finally:
            EVENT_STREAMS.dec()
            self._open[client_id] -= 1
            if not self._open[client_id]:
                del self._open[client_id]

    async def _lasting(self, source: Source, still_admitted: Callable[[], bool]) -> AsyncGenerator[bytes]:
        opened_at = sent_at = time.monotonic()
        yield BEGINNING
        async with contextlib.aclosing(source) as frames:
            async for frame in frames:
                now = time.monotonic()
                if self._stopping or now - opened_at > self._settings.stream_seconds or not still_admitted():
                    return
                if frame is None and now - sent_at >= HEARTBEAT_SECONDS:
                    frame = HEARTBEAT
                if frame is not None:
                    sent_at = now
                    yield frame


class EventStream(StreamingResponse):
    """An answer that goes on; made without its place being taken, which it does when it is sent."""

    media_type = MEDIA_TYPE

    def __init__(self, place: contextlib.AbstractContextManager[None], frames: AsyncGenerator[bytes]) -> None:
        self._place = place
        self._frames = frames
        super().__init__(_written(frames), headers=HEADERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Closed here and not when it is collected: its places and its watchers are given back at once.
        async with contextlib.aclosing(self._frames):
            with self._place:
                await super().__call__(scope, receive, send)


async def _written(frames: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
    async for frame in frames:
        yield frame
