"""Sending lines to a syslog collector (RFC 5424): over UDP (RFC 5426), TCP (RFC 6587, counted octets), a local socket.

Written without the standard library's handler, which speaks the older format, blocks without a bound, and drops what a
broken TCP connection did not take.
"""

from __future__ import annotations

import os
import re
import select
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlsplit

FACILITY_AUDIT = 13  # "log audit" (RFC 5424, table 1)
SEVERITY_WARNING, SEVERITY_NOTICE = 4, 5
PORTS = {"udp": 514, "tcp": 601}
PATIENCE_SECONDS = 2.0
APPLICATION = "sluice"


@dataclass(frozen=True, slots=True)
class SyslogAddress:
    """Where a collector listens; `port` is 0 for a local socket, whose path is `host`."""

    kind: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> SyslogAddress:
        """ValueError for what is neither `udp://host[:port]`, `tcp://host[:port]`, nor an absolute path."""
        if text.startswith("/"):
            return cls("unix", text, 0)
        parts = urlsplit(text)
        if parts.scheme not in PORTS or not parts.hostname or parts.path.strip("/") or parts.username:
            raise ValueError("expected udp://host:port, tcp://host:port, or the path of a local socket")
        return cls(parts.scheme, parts.hostname, parts.port or PORTS[parts.scheme])


class Syslog:
    """One connection to a collector, made when it is needed. For one thread."""

    def __init__(self, address: SyslogAddress) -> None:
        self._address = address
        self._host = re.sub(r"[^!-~]", "-", socket.gethostname())[:255] or "-"
        self._socket: socket.socket | None = None

    def send(self, text: str, *, at_ms: int, message_id: str, severity: int) -> None:
        """Sends one message of printable ASCII; OSError where it cannot be handed over within two seconds.

        Over TCP, handed over is not yet received: what lies in the kernel when the collector dies is lost.
        """
        moment = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        priority = FACILITY_AUDIT * 8 + severity
        line = f"<{priority}>1 {moment} {self._host} {APPLICATION} {os.getpid()} {message_id} - {text}".encode()
        try:
            self._connected().sendall(b"%d %s" % (len(line), line) if self._address.kind == "tcp" else line)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket is not None and self._address.kind == "tcp" and _closed_by_peer(self._socket):
            # The first write after the collector has gone would succeed, and its line be lost.
            self.close()
        if self._socket is None:
            self._socket = _connect(self._address)
        return self._socket


def _connect(address: SyslogAddress) -> socket.socket:
    if address.kind == "tcp":
        return socket.create_connection((address.host, address.port), timeout=PATIENCE_SECONDS)
    if address.kind == "unix":
        made, target = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM), address.host
        made.settimeout(PATIENCE_SECONDS)
        try:
            made.connect(target)
        except OSError:
            made.close()
            raise
        return made
    family, kind, protocol, _, resolved = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_DGRAM)[0]
    made = socket.socket(family, kind, protocol)
    made.settimeout(PATIENCE_SECONDS)
    made.connect(resolved)
    return made


def _closed_by_peer(connection: socket.socket) -> bool:
    # A socket with a time limit waits for it even where it is told not to wait.
    readable = select.poll()
    readable.register(connection, select.POLLIN)
    return bool(readable.poll(0)) and connection.recv(1, socket.MSG_PEEK) == b""
