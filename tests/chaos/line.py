"""One keep-alive connection of a caller: HTTP/1.1 in asyncio, whose every failure is one exception."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

CONNECT_SECONDS = 2.0


class NoAnswer(Exception):
    """The question may or may not have arrived; nobody will know from this connection."""


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - whatever was answered
        return json.loads(self.body)


class Line:
    """Speaks to one of several gateways; after a failure, to the next."""

    def __init__(self, urls: list[str], first: int = 0) -> None:
        self._urls = urls
        self._next = first
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, seconds: float = 10
    ) -> Reply:
        """The answer; raises NoAnswer where there was none within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self._ask(method, path, headers, body)
        except (OSError, EOFError, TimeoutError, ValueError) as error:
            self.close()
            self._next += 1
            raise NoAnswer(type(error).__name__) from error

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        address = urlsplit(self._urls[self._next % len(self._urls)])
        if self._streams is None:
            async with asyncio.timeout(CONNECT_SECONDS):
                self._streams = await asyncio.open_connection(address.hostname, address.port)
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", f"Host: {address.netloc}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        first = (await reader.readline()).split(b" ")
        if len(first) < 2:
            raise EOFError
        length, stays = 0, True
        while (head := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = head.decode("latin-1").partition(":")
            if name.lower() == "content-length":
                length = int(value)
            elif name.lower() == "connection" and value.strip().lower() == "close":
                stays = False
        found = Reply(int(first[1]), await reader.readexactly(length))
        if not stays:
            self.close()
        return found
