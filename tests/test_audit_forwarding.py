"""The audit log at a collector: every entry and head in syslog's own format, and what happens while it is away."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from auth.audit_heads import head_of
from auth.audit_verification import Trust
from model_store.database import Sessions
from monitoring.syslog import SyslogAddress
from tests.audit_kit import act, audit_database, sqlite_url, verified
from tests.live_gateway import eventually
from tests.test_audit_log import TRUST, running


@pytest.fixture
def sessions(tmp_path: Path) -> Iterator[Sessions]:
    yield from audit_database(sqlite_url(tmp_path))


class Collector:
    """A syslog collector that listens: what it got, message by message."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.messages: list[str] = []
        self._kind = kind
        if kind == "unix":
            self.address = str(folder / "log")
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.bind(self.address)
        else:
            self._socket = socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
            self._socket.bind(("127.0.0.1", 0))
            self.address = f"{kind}://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def start(self) -> None:
        if self._kind == "tcp":
            self._socket.listen()
        self._thread.start()

    def close(self) -> None:
        # A blocked call does not notice that its socket was closed, but that it was shut down.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            if self._kind != "tcp":
                while message := self._socket.recv(65536):
                    self.messages.append(message.decode())
                return
            connection, _ = self._socket.accept()
            with connection, connection.makefile("rb") as stream:
                while length := _length(stream.read):
                    self.messages.append(stream.read(length).decode())


def _length(read: object) -> int:
    digits = b""
    while (character := read(1)) not in (b" ", b""):  # type: ignore[operator]
        digits += character
    return int(digits or 0)


@pytest.mark.parametrize("kind", ["udp", "tcp", "unix"])
def test_a_collector_gets_every_entry_and_head_in_the_format_of_rfc_5424(sessions: Sessions, tmp_path: Path, kind: str):
    collector = Collector(kind, tmp_path)
    collector.start()
    with running(sessions, audit_syslog=collector.address, audit_head_seconds=0.1) as log:
        log.add(act(1))
        log.add(act(3))
        eventually(lambda: len(collector.messages) >= 3)
    collector.close()

    headers = [message.split(" ", 7)[:7] for message in collector.messages]
    bodies = [json.loads(message.split(" ", 7)[7]) for message in collector.messages]
    assert [header[0] for header in headers[:2]] == ["<109>1", "<108>1"]
    assert all(header[1].endswith("Z") and header[3] == "sluice" and header[6] == "-" for header in headers)
    assert [(body["number"], body["name"]) for body in bodies[:2]] == [(1, "client 1"), (2, "client 3")]
    head = head_of({name: value for name, value in bodies[2].items() if name != "kind"})
    assert head is not None
    assert verified(sessions, Trust(TRUST.kids, (head,))).faults == []


def test_a_collector_that_is_away_holds_up_nothing_and_gets_everything_later(sessions: Sessions, tmp_path: Path):
    collector = Collector("tcp", tmp_path)
    with running(sessions, "g1", audit_syslog=collector.address) as log:
        log.add(act(1))
        eventually(lambda: verified(sessions).end.number == 1)

    # when it listens, and another gateway has taken over
    collector.start()
    with running(sessions, "g1", audit_syslog=collector.address) as log:
        log.add(act(2))
        eventually(lambda: len(collector.messages) >= 3)
    collector.close()

    numbers = [json.loads(message.split(" ", 7)[7])["number"] for message in collector.messages if " entry " in message]
    assert numbers == [1, 2]


@pytest.mark.parametrize("text", ["", "udp://", "http://h", "log", "tcp://u:p@h:1", "udp://h/path", "tcp://h:99999"])
def test_an_address_that_is_none_is_refused(text: str):
    with pytest.raises(ValueError, match=r"expected|[Pp]ort"):
        SyslogAddress.parse(text)


def test_addresses_have_the_usual_ports():
    assert SyslogAddress.parse("udp://logs.example") == SyslogAddress("udp", "logs.example", 514)
    assert SyslogAddress.parse("tcp://[::1]:6514") == SyslogAddress("tcp", "::1", 6514)
    assert SyslogAddress.parse("/dev/log") == SyslogAddress("unix", "/dev/log", 0)
