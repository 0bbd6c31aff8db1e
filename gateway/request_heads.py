"""uvicorn's connection with bounds on a request's head, of which it has none: how long it is, and how long it takes."""

from __future__ import annotations

import asyncio
from typing import cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.joined_writes import JoinedWrites

MOST_BYTES = 64 * 1024
MOST_SECONDS = 20.0


class BoundedHeads(HttpToolsProtocol):
    """Closes a connection whose next head (request line and headers) is too long or does not come to an end.

    The body is not its matter: who may send one, and how much, is decided once the head is known.
    """

    _reading = False  # a head has begun and is not complete
    _bytes = 0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport, self.loop)))
        self._deadline = self.loop.call_later(MOST_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        began_earlier = self._reading
        super().data_received(data)
        if not self._reading:
            return
        # What came in one piece with the end of another request is not counted: it is bounded by what one read takes.
        self._bytes += len(data) if began_earlier else 0
        if self._bytes > MOST_BYTES:
            self._reading = False
            self.send_400_response(f"The request line and headers are longer than {MOST_BYTES} bytes.")
        elif self._deadline is None:
            self._deadline = self.loop.call_later(MOST_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading, self._bytes = True, 0

    def on_headers_complete(self) -> None:
        self._reading = False
        self._stop_waiting()
        super().on_headers_complete()

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
