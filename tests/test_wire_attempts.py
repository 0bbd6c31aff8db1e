"""Connections to a Redis that accepts them and stands still: each attempt closes its own before the next."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.wire import open_socket
from tests.queue_kit import worker_settings

GIVE_UP_SECONDS = 0.2
END_SECONDS = 10


async def left_open(folder: Path) -> bytes:
    """What a server reads that never answers, to the end of the connection."""
    read: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def stand_still(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            read.set_result(await reader.read())
        except ConnectionResetError:
            read.set_result(b"")
        writer.close()

    server = await asyncio.start_server(stand_still, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        settings = worker_settings(f"redis://127.0.0.1:{port}/0", f"sqlite:///{folder / 'none.db'}", folder)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(GIVE_UP_SECONDS):
                await open_socket(settings)
        return await asyncio.wait_for(read, END_SECONDS)


def test_an_attempt_that_is_given_up_leaves_no_connection_open(tmp_path: Path):
    assert asyncio.run(left_open(tmp_path)) in (b"", b"*1\r\n$4\r\nPING\r\n")
