"""Which ports are chosen where nobody names one."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from sluice import listening_ports
from sluice.listening_ports import HOST, LEAST_PORT, free_port, next_free_ports, port_is_free


@pytest.fixture
def outgoing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the system says of ports of connections that go out."""
    path = tmp_path / "ip_local_port_range"
    monkeypatch.setattr(listening_ports, "OUTGOING", path)
    return path


def test_a_free_port_is_none_that_connections_go_out_from(outgoing: Path):
    outgoing.write_text("10040\t60999\n")
    found = {free_port() for _ in range(100)}
    assert found <= set(range(LEAST_PORT, 10040))
    assert len(found) > 1


@pytest.mark.parametrize("told", [None, "", "a few", "1024\t60999"], ids=["nothing", "empty", "words", "all of them"])
def test_where_there_are_no_others_it_is_any(outgoing: Path, told: str | None):
    if told is not None:
        outgoing.write_text(told)
    assert port_is_free(free_port())


def test_a_port_with_a_listener_is_not_free():
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        assert not port_is_free(port)
        assert next_free_ports(range(port - 1, port))[0] != port


def test_ports_that_follow_are_taken_where_they_are_free():
    port = free_port()
    assert next_free_ports(range(port - 1, port)) == [port]
