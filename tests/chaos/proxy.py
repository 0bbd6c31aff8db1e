"""A proxy between Sluice and a server, which breaks the connection in the ways in which networks do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from enum import StrEnum
from pathlib import Path

CHUNK_BYTES = 64 * 1024


class Mode(StrEnum):
    PASS = "pass"
    CUT = "cut"  # connections are reset, new ones as well
    BLACK_HOLE = "black hole"  # what is sent arrives nowhere, and nobody says so: a half-open connection
    SLOW = "slow"  # each piece takes a while longer, in both directions
    DROP_REPLIES = "drop replies"  # what is asked is done, but the answer is lost with the connection


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens at one place and speaks to another, on TCP or on a Unix socket, in a thread of its own."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]], *, delay_seconds: float = 0.2) -> None:
        self._connect = connect
        self._delay = delay_seconds
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mode = Mode.PASS
        self._changed = asyncio.Event()
        self._server: asyncio.Server | None = None

    def listen(self, *, port: int | None = None, path: Path | None = None) -> None:
        """Begin to listen on a port of the loopback address, or at a path."""
        self._thread.start()

        async def start() -> None:
            if port is not None:
                self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
            else:
                self._server = await asyncio.start_unix_server(self._serve, path)

        self._wait(asyncio.run_coroutine_threadsafe(start(), self._loop))

    def set(self, mode: Mode) -> None:
        """From now on behave so; leaving `PASS` for `CUT`, and coming back from anything, breaks what is connected."""

        async def change() -> None:
            before, self._mode = self._mode, mode
            self._changed.set()
            self._changed = asyncio.Event()
            if mode is Mode.CUT or (mode is Mode.PASS and before in (Mode.BLACK_HOLE, Mode.DROP_REPLIES)):
                self._break()

        self._wait(asyncio.run_coroutine_threadsafe(change(), self._loop))

    def close(self) -> None:
        async def stop() -> None:
            if self._server is not None:
                self._server.close()
            self._break()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

        self._wait(asyncio.run_coroutine_threadsafe(stop(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    @staticmethod
    def _wait(done: Future[None]) -> None:
        done.result(10)

    def _break(self) -> None:
        for pair in list(self._pairs):
            for writer in pair:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if self._mode is Mode.CUT:
            writer.transport.abort()
            return
        try:
            there = await self._connect()
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, there[1])
        self._pairs.add(pair)
        try:
            ways = (self._carry(reader, there[1], answers=False), self._carry(there[0], writer, answers=True))
            await asyncio.gather(*ways)
        except asyncio.CancelledError:
            # The proxy closes. A server of asyncio's would report it as an error of its own.
            return
        finally:
            self._pairs.discard(pair)
            for end in pair:
                end.transport.abort()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(OSError, EOFError):
            while data := await source.read(CHUNK_BYTES):
                while self._mode is Mode.BLACK_HOLE:
                    # Kept until the connection is broken: a network that lost it would not bring it later either.
                    await self._changed.wait()
                if answers and self._mode is Mode.DROP_REPLIES:
                    break
                if self._mode is Mode.SLOW:
                    await asyncio.sleep(self._delay)
                sink.write(data)
                await sink.drain()
        sink.transport.abort()


def to_port(port: int) -> Callable[[], Awaitable[Streams]]:
    """Connects to a port of the loopback address."""
    return lambda: asyncio.open_connection("127.0.0.1", port)


def to_path(path: Path) -> Callable[[], Awaitable[Streams]]:
    """Connects to a Unix socket."""
    return lambda: asyncio.open_unix_connection(path)
