"""Ports of `sluice up`: whether one is free, and which ones gRPC gets."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"
MOST_PORT = 65_535


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
    """A port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def next_free_ports(after: range) -> list[int]:
    """As many ports as there are in `after`: those that follow it, and any other one for each that is taken."""
    found: list[int] = []
    for port in range(after.stop, after.stop + len(after)):
        free = port <= MOST_PORT and port_is_free(port)
        found.append(port if free else free_port())
    return found
