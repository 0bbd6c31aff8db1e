"""An event loop whose TLS handshakes are bounded: uvicorn passes no bound, and the loop's own is a minute."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop

HANDSHAKE_SECONDS = 5.0


class BoundedHandshakes(uvloop.Loop):
    """uvloop's, but who opens a connection and says nothing holds it for seconds, not for a minute.

    A connection is counted among the gateway's only when its handshake is done.
    """

    async def create_server(self, *arguments: Any, **options: Any) -> asyncio.AbstractServer:  # type: ignore[override]  # noqa: ANN401 - whatever the loop takes
        if options.get("ssl") is not None:
            options.setdefault("ssl_handshake_timeout", HANDSHAKE_SECONDS)
        made: asyncio.AbstractServer = await super().create_server(*arguments, **options)
        return made
