"""Messages rewritten as bodies of requests, and answers as messages, without holding up other calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.grpc_services.messages import Fields

# Numbers of a longer message are rewritten in a thread: on the event loop they would hold up the others.
INLINE_BYTES = 64 * 1024


class Rewriting:
    """Rewrites one long message at a time, in the order in which they come; short ones at once."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def of(self, size: int, rewrite: Callable[..., Fields], *given: object) -> Fields:
        """What `rewrite` makes of the arguments, which are about `size` bytes."""
        if size <= INLINE_BYTES:
            return rewrite(*given)
        # One at a time: each takes the interpreter from the event loop in turn with the others.
        async with self._turn:
            return await asyncio.to_thread(rewrite, *given)
