"""One attempt to hand a webhook to its receiver: resolved once, checked, and sent to the very address that was checked.

A client of its own, since none of those at hand can be told where to connect, and each follows the environment's
proxies. It takes so long and so many bytes and no more, whatever the receiver does, and keeps nothing of the answer
but its status and Retry-After.
"""

from __future__ import annotations

import contextlib
import email.utils
import re
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as Late
from dataclasses import dataclass
from enum import StrEnum

from workers.webhooks.networks import Network, may_go_to
from workers.webhooks.urls import Receiver

TOTAL_SECONDS = 10.0
DRAIN_SECONDS = 1.0
MOST_BYTES = 64 * 1024
MOST_RETRY_AFTER_SECONDS = 24 * 3600
ADDRESSES_TRIED = 3
# A lookup goes on for half a minute or more after its attempt was given up: as many as may overlap.
LOOKUPS_A_THREAD = 4

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?")

Resolve = Callable[[str, int], Sequence[str]]
"""The network addresses of a host, as the system gives them; raises OSError."""


class Failure(StrEnum):
    """Why an attempt failed, as far as its client may know: nothing of what is behind the name."""

    ADDRESS = "address"  # the name has no address that webhooks may go to: unknown, private, or a mixture
    CONNECTION = "connection"  # refused, reset, or closed without an answer
    TLS = "tls"
    TIMEOUT = "timeout"
    ANSWER = "answer"  # not HTTP, or a head without end
    STATUS = "status"  # answered, but not with 2xx; a redirect is such an answer


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt went; `failure` is None where the receiver took it."""

    failure: Failure | None
    status: int | None = None
    retry_after_seconds: int | None = None


class Sender:
    """Sends one webhook at a time for each thread that calls it; made once for a process."""

    def __init__(
        self,
        tls: ssl.SSLContext,
        allowed: Sequence[Network],
        resolve: Resolve,
        threads: int,
        seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._tls = tls
        self._seconds = seconds
        self._allowed = allowed
        self._resolve = resolve
        # The system's resolver knows no time limit of ours.
        self._lookups = ThreadPoolExecutor(threads * LOOKUPS_A_THREAD, thread_name_prefix="lookup")

    def send(self, receiver: Receiver, fields: Mapping[str, str], body: bytes) -> Outcome:
        """Post the body; never raises for what a receiver or the network does."""
        until = time.monotonic() + self._seconds
        try:
            addresses = self._addresses(receiver, until)
            with self._connected(receiver, addresses, until) as connection:
                connection.settimeout(_left(until))
                connection.sendall(_request(receiver, fields, body))
                return _outcome(connection, until)
        except AddressRefused:
            return Outcome(Failure.ADDRESS)
        except (TimeoutError, Late):
            return Outcome(Failure.TIMEOUT)
        except AnswerMalformed:
            return Outcome(Failure.ANSWER)
        except ssl.SSLError:
            return Outcome(Failure.TLS)
        except OSError:
            return Outcome(Failure.CONNECTION)

    def _addresses(self, receiver: Receiver, until: float) -> list[str]:
        lookup = self._lookups.submit(self._resolve, receiver.host, receiver.port)
        try:
            found = lookup.result(_left(until))
        except (TimeoutError, Late):
            # One that has not begun is for nobody any more.
            lookup.cancel()
            raise
        except (OSError, UnicodeError):
            raise AddressRefused from None
        # One that may not be gone to condemns the name: whoever mixes them hopes for the other one.
        if not found or not all(may_go_to(address, self._allowed) for address in found):
            raise AddressRefused
        return list(dict.fromkeys(found))[:ADDRESSES_TRIED]

    def _connected(self, receiver: Receiver, addresses: Sequence[str], until: float) -> socket.socket:
        for index, address in enumerate(addresses):
            try:
                plain = socket.create_connection(
                    (address, receiver.port), timeout=_left(until) / (len(addresses) - index)
                )
            except OSError:
                if index == len(addresses) - 1:
                    raise
                continue
            if not receiver.secure:
                return plain
            try:
                plain.settimeout(_left(until))
                return self._tls.wrap_socket(plain, server_hostname=receiver.host)
            except BaseException:  # raised on: whatever ends the handshake, the socket is closed
                plain.close()
                raise
        raise AddressRefused


class AddressRefused(Exception):
    """The name stands for no address that a webhook may go to."""


class AnswerMalformed(Exception):
    """What came back is no answer of HTTP/1."""


def system_addresses(host: str, port: int) -> list[str]:
    """The addresses that the system's resolver gives for a host."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _request(receiver: Receiver, fields: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"POST {receiver.target} HTTP/1.1", f"Host: {receiver.host_field}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    lines += [f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def _outcome(connection: socket.socket, until: float) -> Outcome:
    """Read the answer's head, and what little of its body a receiver needs to see taken."""
    left = MOST_BYTES
    received = b""
    while True:
        head, end, rest = received.partition(b"\r\n\r\n")
        if end:
            status, retry_after = _read_head(head)
            if status >= 200:
                break
            received = rest  # an interim answer (RFC 9110, section 15.2)
            continue
        piece = _receive(connection, left, until)
        left -= len(piece)
        received += piece
        if not piece:
            # It ended, or there was room for nothing more.
            raise AnswerMalformed
    _drain(connection, left, min(until, time.monotonic() + DRAIN_SECONDS))
    return Outcome(None if status < 300 else Failure.STATUS, status, retry_after)


def _drain(connection: socket.socket, most: int, until: float) -> None:
    # A receiver whose answer is cut off may count its own work as failed; its status stands all the same.
    with contextlib.suppress(OSError):
        while most and (piece := _receive(connection, most, until)):
            most -= len(piece)


def _receive(connection: socket.socket, most: int, until: float) -> bytes:
    connection.settimeout(_left(until))
    return connection.recv(min(most, 16 * 1024))


def _read_head(head: bytes) -> tuple[int, int | None]:
    first, *fields = head.split(b"\r\n")
    found = _STATUS.fullmatch(first)
    if found is None:
        raise AnswerMalformed
    for field in fields:
        name, _, value = field.partition(b":")
        if name.lower() == b"retry-after":
            return int(found[1]), _seconds(value.decode("latin-1").strip())
    return int(found[1]), None


def _seconds(text: str) -> int | None:
    """Retry-After as seconds from now (RFC 9110, section 10.2.3); None where it says nothing."""
    if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII):
        return min(int(text), MOST_RETRY_AFTER_SECONDS)
    try:
        moment = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0, min(int(moment - time.time()), MOST_RETRY_AFTER_SECONDS))


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left
