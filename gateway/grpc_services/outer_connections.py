"""Connections of gRPC's callers: taken, bounded and decrypted here, then handed to the server behind, byte for byte.

gRPC's own listener counts no connections, looks at no revocation lists, and asks for certificates of clients from
everybody or from nobody. Here the same rules hold as for HTTP (gateway/connections.py, gateway/certificates.py): one
set of settings, read again while it serves. It costs about 50 µs a call. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import cast

from gateway.certificates import LiveContext, client_thumbprint
from gateway.connections import LOOK_SECONDS, Occupancy, network_of
from gateway.grpc_services.calls import Peer

log = logging.getLogger(__name__)

UNKNOWN = Peer(("", 0))
# What gRPC calls the other end of a connection whose end has a name in the abstract namespace.
ABSTRACT = "unix-abstract:"
# How much of an answer may lie here before the server behind has to wait.
MOST_UNSENT_BYTES = 256 * 1024
# What may come on a connection before a call on it had a token: gRPC's bound of messages is one for all methods, and
# strangers would fill our memory by asking after our health. Who asks once a second needs half of it in an hour.
STRANGERS_BYTES = 1024**2
# How long a connection that has sent more is left to itself: a token on its way in may not have been read yet.
STRANGERS_SECONDS = 5.0


class OuterConnections:
    """All of them: the listener, and who is behind each connection of the server's. Used from one event loop."""

    def __init__(self, occupancy: Occupancy, inner: str) -> None:
        """`inner` is the path of the socket on which the server behind listens."""
        self.occupancy = occupancy
        self._inner = inner
        self._known: dict[str, tuple[Peer, OuterConnection]] = {}
        self._open: set[OuterConnection] = set()
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int, tls: LiveContext | None, backlog: int) -> int:
        """The port that is listened on: `port`, or a free one where that is 0."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: OuterConnection(self), host, port, ssl=tls, backlog=backlog, reuse_address=True
        )
        return int(self._listener.sockets[0].getsockname()[1])

    def peer(self, name: str) -> Peer:
        """Whose connection it is that gRPC calls so."""
        known = self._known.get(name)
        return UNKNOWN if known is None else known[0]

    def cut(self, name: str) -> None:
        """End the connection that gRPC calls so at once, with whatever is on its way."""
        known = self._known.get(name)
        if known is not None:
            known[1].cut()

    def trust(self, name: str) -> None:
        """Somebody known calls on the connection that gRPC calls so: as much may come as the limits say."""
        known = self._known.get(name)
        if known is not None:
            known[1].trust()

    async def connect(self, outer: OuterConnection, peer: Peer) -> InnerConnection:
        """A connection to the server behind, known by its own name from then on; raises OSError."""
        loop = asyncio.get_running_loop()
        end = socket.socket(socket.AF_UNIX)
        end.setblocking(False)
        # The kernel gives it a name that nobody else has (unix(7), "autobind").
        end.bind("")
        name = ABSTRACT + end.getsockname()[1:].decode("ascii")
        self._known[name] = (peer, outer)
        try:
            await loop.sock_connect(end, self._inner)
            _, inner = await loop.create_unix_connection(lambda: InnerConnection(self, outer, name), sock=end)
        except BaseException:
            self.forget(name)
            end.close()
            raise
        return inner

    def opened(self, connection: OuterConnection) -> None:
        self._open.add(connection)

    def closed(self, connection: OuterConnection) -> None:
        self._open.discard(connection)

    def forget(self, name: str) -> None:
        self._known.pop(name, None)

    def stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()

    def close(self) -> None:
        """End what is still open."""
        for connection in tuple(self._open):
            connection.end()


class OuterConnection(asyncio.Protocol):
    """A connection from outside, and the pump to the one behind it."""

    _transport: asyncio.Transport

    def __init__(self, connections: OuterConnections) -> None:
        self._connections = connections
        self._network = ""
        self._inner: InnerConnection | None = None
        # What came before there was somebody to hand it to: a read may be under way when reading is paused.
        self._early: list[bytes] = []
        self._joining: asyncio.Task[None] | None = None
        self._unsent = 0
        self._look: asyncio.TimerHandle | None = None
        # How many bytes may come still; None is any number.
        self._room: int | None = STRANGERS_BYTES
        self._end: asyncio.TimerHandle | None = None
        self._held_back = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(MOST_UNSENT_BYTES)
        client = transport.get_extra_info("peername") or ("", 0)
        self._network = network_of(client[0])
        self._connections.opened(self)
        if self._connections.occupancy.enter(self._network) is not None:
            # Before anything was said there is no call that could be refused in words.
            self._transport.abort()
            return
        self._transport.pause_reading()
        peer = Peer((client[0], client[1]), client_thumbprint(transport))
        self._joining = asyncio.ensure_future(self._join(peer))

    async def _join(self, peer: Peer) -> None:
        transport = self._transport
        try:
            self._inner = await self._connections.connect(self, peer)
        except OSError:
            log.exception("a connection cannot be handed to the gRPC server")
            transport.abort()
            return
        if transport.is_closing():
            self._inner.end()
            return
        self._inner.write(b"".join(self._early))
        self._early.clear()
        self._read_or_wait()

    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            self._early.append(data)
        else:
            self._inner.write(data)
        if self._room is not None:
            self._room -= len(data)
            if self._room < 0 and self._end is None:
                self._end = asyncio.get_running_loop().call_later(STRANGERS_SECONDS, self.cut)
                self._read_or_wait()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended
        self._connections.occupancy.leave(self._network)
        self._connections.closed(self)
        for timer in (self._look, self._end):
            if timer is not None:
                timer.cancel()
        if self._inner is not None:
            self._inner.end()

    def pause_writing(self) -> None:
        """The caller reads more slowly than it is answered: the server behind waits, and the caller is looked at."""
        self._unsent = self._transport.get_write_buffer_size()
        if self._inner is not None:
            self._inner.hold_back()
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look_again)

    def resume_writing(self) -> None:
        if self._inner is not None:
            self._inner.go_on()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def hold_back(self) -> None:
        self._held_back = True
        self._read_or_wait()

    def go_on(self) -> None:
        self._held_back = False
        self._read_or_wait()

    def trust(self) -> None:
        self._room = None
        if self._end is not None:
            self._end.cancel()
            self._end = None
            self._read_or_wait()

    def _read_or_wait(self) -> None:
        if self._transport.is_closing():
            return
        if self._held_back or self._end is not None:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def cut(self) -> None:
        """Close it with whatever is on its way."""
        self._transport.abort()

    def end(self) -> None:
        """Close it once everything is sent."""
        self._transport.close()

    def _look_again(self) -> None:
        self._look = None
        before, self._unsent = self._unsent, self._transport.get_write_buffer_size()
        if before - self._unsent < self._connections.occupancy.bounds.least_bytes_per_second * LOOK_SECONDS:
            self._transport.abort()
            return
        self._look = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look_again)


class InnerConnection(asyncio.Protocol):
    """The connection to the server behind that belongs to one from outside."""

    _transport: asyncio.Transport

    def __init__(self, connections: OuterConnections, outer: OuterConnection, name: str) -> None:
        self._connections = connections
        self._outer = outer
        self._name = name

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._outer.write(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it ended
        self._connections.forget(self._name)
        self._outer.end()

    def pause_writing(self) -> None:
        self._outer.hold_back()

    def resume_writing(self) -> None:
        self._outer.go_on()

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def hold_back(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._transport.pause_reading()

    def go_on(self) -> None:
        with contextlib.suppress(RuntimeError):
            self._transport.resume_reading()

    def end(self) -> None:
        self._transport.close()
