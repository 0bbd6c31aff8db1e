"""uvicorn's connection with bounds on a request's head, of which it has none: how long it is, how long it takes, and
what it may say."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gateway.errors import render
from gateway.joined_writes import JoinedWrites
from gateway.request_framing import (
    WATCHED,
    ExpectationUnknown,
    RequestMalformed,
    coding_fault,
    host_fault,
    target_fault,
    version_fault,
)
from model_store.errors import SluiceError

MOST_BYTES = 64 * 1024
MOST_SECONDS = 20.0
CLOSING_HEADERS = b"connection: close\r\nx-content-type-options: nosniff\r\n"


class Trailers(list[tuple[bytes, bytes]]):
    """Takes the place of a head's headers once it is complete, and takes none.

    uvicorn would add them to the head's own: an Authorization, say, that no proxy has seen.
    """

    def append(self, field: tuple[bytes, bytes]) -> None:  # noqa: ARG002 - a list's
        raise RequestMalformed("trailers are not taken")


TRAILERS = Trailers()


class BoundedHeads(HttpToolsProtocol):
    """Closes a connection whose next head (request line and headers) is too long, too slow, or ambiguous.

    Who may send a body, and how much, is decided once the head is known; only what surrounds a body (chunk headers,
    trailers) is bounded here. Callbacks run for each request and each header: a microsecond here is one percent.
    """

    extensions: Mapping[str, Any] | None = None  # ASGI's, of all requests of this connection

    _reading = False  # a head has begun and is not complete
    _receiving = False  # a head is complete and its body is not
    _bytes = 0  # of this head, or since the last piece of its body
    _deadline: asyncio.TimerHandle | None = None
    _fault: SluiceError | None = None
    _hosts = 0
    _coded = False
    _upgrades = False
    # What was found good on this connection; callers repeat themselves.
    _good_host: bytes | None = None
    _good_target: bytes | None = None

    url = b""  # of no request yet

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport, self.loop)))
        self._deadline = self.loop.call_later(MOST_SECONDS, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # What came in one piece with the end of another request is not counted: it is bounded by what one read takes.
        if self._reading or self._receiving:
            self._bytes += len(data)
        super().data_received(data)
        if self._reading or self._receiving:
            self._unfinished(len(data))
        elif self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            # Empty lines may come before a request; they must not keep a connection for ever.
            self._deadline = self.loop.call_later(MOST_SECONDS, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self.extensions is not None:
            cast(dict[str, Any], self.scope)["extensions"] = self.extensions
        self._reading, self._coded, self._bytes, self._hosts = True, False, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        # Instead of uvicorn's own, which looks at each for Expect.
        name = name.lower()
        if name in WATCHED:
            self._watch(name, value)
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        # Another version with one Host is answered and closed; asking the parser for it costs more than all the rest.
        if self._hosts != 1 or self._coded:
            self._require(version_fault(self.parser.get_http_version(), self._hosts, coded=self._coded))
        if self.url != self._good_target:
            self._require(target_fault(self.url))
            self._good_target = self.url
        last = self._upgrades and self._asks_for_another_protocol()
        self._reading, self._receiving, self._bytes = False, True, 0
        self._stop_waiting()
        super().on_headers_complete()
        self.headers = TRAILERS
        if last:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        # This and the next instead of uvicorn's own, which look whether a WebSocket has begun.
        self._bytes = 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._receiving = False
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()

    def send_400_response(self, msg: str) -> None:
        """As uvicorn asks for it, where the parser or one of the callbacks above failed."""
        self.refuse(self._fault or RequestMalformed(msg))

    def refuse(self, error: SluiceError) -> None:
        """Answer in the application's place, in the shape of the request's path, and close.

        A request before this one keeps its answer; half an answer is broken off.
        """
        cycle, in_body = self.cycle, self._receiving
        self._reading = self._receiving = False
        self._stop_waiting()
        if cycle is not None and not in_body and not cycle.response_complete:
            cycle.keep_alive = False
            return
        begun = in_body and (cycle.response_started or bool(self.pipeline))
        if in_body:
            # For the application its caller has gone.
            cycle.disconnected = True
            cycle.message_event.set()
        if not begun and not self.transport.is_closing():
            self.transport.write(last_answer(self.url, error, self.server_state.default_headers))
        self.transport.close()

    def body_goes_on(self, size: int) -> None:
        """So many bytes came, and the body is not complete."""

    def _unsupported_upgrade_warning(self) -> None:
        """uvicorn's two lines of advice for each such request; what becomes of it is decided above."""

    def _unfinished(self, size: int) -> None:
        if self._bytes > MOST_BYTES:
            self.refuse(RequestMalformed(f"the request line and headers are longer than {MOST_BYTES} bytes"))
        elif self._receiving:
            self.body_goes_on(size)
        elif self._deadline is None:
            self._deadline = self.loop.call_later(MOST_SECONDS, self.transport.close)

    def _watch(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
            if value != self._good_host:
                self._require(host_fault(value))
                self._good_host = value
        elif name == b"transfer-encoding":
            self._require(coding_fault(value))
            self._coded = True
        elif name == b"upgrade":
            self._upgrades = True
        elif value.lower() == b"100-continue":
            self.expect_100_continue = True
        else:
            self._require(ExpectationUnknown("the only expectation that is understood is 100-continue"))

    def _asks_for_another_protocol(self) -> bool:
        """Whether the parser takes what follows this head for another protocol's; raises where that is a body.

        The request is answered as if it had not asked (RFC 9110, section 7.8), and nothing after it is read.
        """
        self._upgrades = False
        if not self.parser.should_upgrade():
            return False
        if self._coded or any(name == b"content-length" and value.strip(b"0 ") for name, value in self.headers):
            self._require(RequestMalformed("a request with a body cannot ask for another protocol"))
        return True

    def _require(self, fault: SluiceError | None) -> None:
        """In a callback of the parser, which then calls `send_400_response`."""
        if fault is not None:
            self._fault = fault
            raise fault

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def last_answer(target: bytes, error: SluiceError, headers: list[tuple[bytes, bytes]]) -> bytes:
    """An error as bytes on the wire, head and body, after which the connection is closed; `headers` come along."""
    status, own, body = render(target.partition(b"?")[0].decode("latin-1"), error)
    pairs = [*headers, *((name.encode(), value.encode()) for name, value in own.items())]
    lines = b"".join(b"%s: %s\r\n" % pair for pair in pairs)
    return b"%s%s%scontent-length: %d\r\n\r\n%s" % (STATUS_LINE[status], lines, CLOSING_HEADERS, len(body), body)
