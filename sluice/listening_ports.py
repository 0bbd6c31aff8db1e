"""Ports of `sluice up`: whether one is free, and which ones gRPC gets."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

HOST = "127.0.0.1"
MOST_PORT = 65_535
# Ports of one's own begin well above those that services are known by.
LEAST_PORT = 10_000
TRIES = 100
# Linux: the first and the last of the ports that it gives to connections that go out (ip-sysctl).
OUTGOING = Path("/proc/sys/net/ipv4/ip_local_port_range")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port now; connections that are winding down do not count."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port on which nobody listens now.

    None of those that connections go out from, if there are others: by the time that a server listens on it, one of
    them may have been given to a connection.
    """
    others = range(LEAST_PORT, _first_outgoing())
    for _ in range(TRIES if others else 0):
        port = secrets.choice(others)
        if port_is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _first_outgoing() -> int:
    try:
        return int(OUTGOING.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0


def next_free_ports(after: range) -> list[int]:
    """As many ports as there are in `after`: those that follow it, and any other one for each that is taken."""
    found: list[int] = []
    for port in range(after.stop, after.stop + len(after)):
        free = port <= MOST_PORT and port_is_free(port)
        found.append(port if free else free_port())
    return found
