"""A connection that sends an answer's head and body together: one system call and one packet instead of two of each.

uvicorn writes them one after the other, and uvloop sends at once what it is given. For an answer of a few hundred bytes
that was an eighth of the gateway's time, and the caller woke up for a head without a body.
"""

from __future__ import annotations

import asyncio
from typing import Any

HEAD_START = b"HTTP/1.1 "
HEAD_END = b"\r\n\r\n"
# How long an answer waits for its reader when the connection is to be closed.
UNREAD_SECONDS = 20.0


class JoinedWrites:
    """A transport for uvicorn's HTTP protocol; whatever is not about writing is the real transport's business."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""

    def write(self, data: bytes) -> None:
        """Send at once, but for a head: that one waits for what is written next, until the end of this turn at most."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(HEAD_END) and data.startswith(HEAD_START):
            # An answer to HEAD has no body, and a stream may begin late.
            self._head = data
            self._loop.call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        """Send a head that nothing was written after."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        """Close once everything is sent; who does not read it is not waited for for ever."""
        self.flush()
        self._transport.close()
        if self._transport.get_write_buffer_size():
            self._loop.call_later(UNREAD_SECONDS, self._transport.abort)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the transport has
        return getattr(self._transport, name)
