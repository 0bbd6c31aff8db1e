"""The gateway's connections: how many there may be, and how slowly their ends may talk and listen.

A slow caller costs a connection and what it has sent so far; a bound on both keeps that from becoming everybody's
matter. Times are in seconds.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import Any

from gateway.certificates import client_thumbprint
from gateway.request_heads import BoundedHeads
from model_store.errors import SluiceError

# A body, or an answer that is being read, is looked at so often; each time it must have moved on.
LOOK_SECONDS = 20.0
# How long a connection stays that is refused for want of room: to read its request, or the answer would be lost.
REFUSAL_SECONDS = 2.0
# So many more than the bound may wait for such a refusal; beyond, connections are cut without a word.
MOST_REFUSALS = 256
# The smallest network that is given to one household or host; an address in it costs nothing.
IPV6_PREFIX = 64


class BodyTooSlow(SluiceError):
    """RFC 9110, section 15.5.9."""

    status = 408
    code = "body_too_slow"


class ConnectionsExhausted(SluiceError):
    status = 503
    code = "connections_exhausted"


class AddressConnectionsExhausted(SluiceError):
    status = 429
    code = "address_connections_exhausted"


@dataclass(frozen=True, slots=True)
class ConnectionBounds:
    """Of one process; `per_address` 0 is none, `least_bytes_per_second` is of bodies and of answers."""

    connections: int
    per_address: int
    least_bytes_per_second: int


class Occupancy:
    """Who is connected. One object for all connections of a process, used from its event loop alone."""

    def __init__(self, bounds: ConnectionBounds) -> None:
        self.bounds = bounds
        self._open = 0
        self._by_address: Counter[str] = Counter()

    @property
    def overflowing(self) -> bool:
        """Whether there are so many connections that there is no room for refusals either."""
        return self._open > self.bounds.connections + MOST_REFUSALS

    def enter(self, network: str) -> SluiceError | None:
        """Count a connection, and say what speaks against it; `leave` follows in either case."""
        self._open += 1
        self._by_address[network] += 1
        if self._open > self.bounds.connections:
            return ConnectionsExhausted("there are too many connections", retry_after_seconds=1)
        if 0 < self.bounds.per_address < self._by_address[network]:
            return AddressConnectionsExhausted(
                "there are too many connections from this address", retry_after_seconds=1
            )
        return None

    def leave(self, network: str) -> None:
        self._open -= 1
        self._by_address[network] -= 1
        if not self._by_address[network]:
            del self._by_address[network]


class Connection(BoundedHeads):
    """A connection of the gateway: counted, and closed when its other end neither sends nor reads what it should."""

    _network = ""
    _received = 0  # of a body, since it was looked at last
    _held_back = False  # whether it was us who did not read, when that was
    _unsent = 0
    _body_look: asyncio.TimerHandle | None = None
    _answer_look: asyncio.TimerHandle | None = None

    def __init__(self, occupancy: Occupancy, **uvicorns: Any) -> None:  # noqa: ANN401 - what uvicorn gives a protocol
        super().__init__(**uvicorns)
        self._occupancy = occupancy

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        self._network = network_of(self.client[0] if self.client else "")
        refusal = self._occupancy.enter(self._network)
        if refusal is not None:
            # A protocol of its own, so that those who are let in do not ask about it with every piece of data.
            transport.set_protocol(Refusal(self, transport, refusal))
            if self._occupancy.overflowing:
                transport.abort()
            return
        thumbprint = client_thumbprint(transport)
        if thumbprint is not None:
            self.extensions = {"tls": {"client_cert_thumbprint": thumbprint}}

    def connection_lost(self, exc: Exception | None) -> None:
        self._occupancy.leave(self._network)
        for look in (self._body_look, self._answer_look):
            if look is not None:
                look.cancel()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        # Streams would last until the server's patience ends; the application says how to end them.
        end_streams = self.app_state.get("end_streams")
        if end_streams is not None:
            end_streams()

    def body_goes_on(self, size: int) -> None:
        self._received += size
        if self._body_look is None:
            self._received, self._held_back = 0, False
            self._body_look = self.loop.call_later(LOOK_SECONDS, self._look_at_body)

    def _look_at_body(self) -> None:
        """Refuse a body that does not come on, unless it is us who do not read it or have not asked for it yet."""
        self._body_look = None
        if not self._receiving:
            return
        held_back = self.flow.read_paused or self.cycle.waiting_for_100_continue
        if not held_back and not self._held_back:
            if self.cycle.response_complete:
                # Nobody wants the rest of it any more.
                self.transport.close()
                return
            if self._received < self._least():
                self.refuse(BodyTooSlow("the body comes too slowly"))
                return
        self._received, self._held_back = 0, held_back
        self._body_look = self.loop.call_later(LOOK_SECONDS, self._look_at_body)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unsent = self.transport.get_write_buffer_size()
        if self._answer_look is None:
            self._answer_look = self.loop.call_later(LOOK_SECONDS, self._look_at_answer)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_look is not None:
            self._answer_look.cancel()
            self._answer_look = None

    def _look_at_answer(self) -> None:
        """Cut off who does not read an answer: it lies in our memory until they do."""
        self._answer_look = None
        before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
        if before - self._unsent < self._least():
            self.transport.abort()
            return
        self._answer_look = self.loop.call_later(LOOK_SECONDS, self._look_at_answer)

    def _least(self) -> float:
        return self._occupancy.bounds.least_bytes_per_second * LOOK_SECONDS


class Refusal(asyncio.Protocol):
    """What a connection is for which there is no room: answered once it has asked for something, then closed."""

    def __init__(self, connection: Connection, transport: asyncio.Transport, error: SluiceError) -> None:
        self._connection = connection
        self._error = error
        self._until = connection.loop.call_later(REFUSAL_SECONDS, transport.close)

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - whatever it is
        self._connection.refuse(self._error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._until.cancel()
        self._connection.connection_lost(exc)


def network_of(address: str) -> str:
    """What counts as one address: an IPv4 address, an IPv6 network of 64 bits; the text itself where it is neither."""
    if ":" not in address:
        return address
    try:
        found = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.IPv6Network((found, IPV6_PREFIX), strict=False))
