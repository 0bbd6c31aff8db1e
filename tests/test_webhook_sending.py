"""One attempt against receivers that behave badly: how long it takes, how much is read, and where it goes."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from sluice.listening_ports import free_port
from tests.webhook_kit import Receiver, receiving, status
from workers.webhooks.networks import parse_networks
from workers.webhooks.sending import (
    LOOKUPS_A_THREAD,
    MOST_BYTES,
    TOTAL_SECONDS,
    Failure,
    Outcome,
    Resolve,
    Sender,
    system_addresses,
)
from workers.webhooks.urls import Receiver as Parts

LIMIT_SECONDS = 1.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sending")


@pytest.fixture(scope="module")
def receiver(folder: Path) -> Iterator[Receiver]:
    with receiving(folder) as made:
        yield made


@pytest.fixture(autouse=True)
def fresh(receiver: Receiver) -> None:
    receiver.received.clear()
    receiver.answers[:] = [status(204)]


def here(host: str, port: int) -> list[str]:  # noqa: ARG001 - the signature of a resolver
    return ["127.0.0.1"]


def sender(
    folder: Path, resolve: Resolve = here, allowed: str = "127.0.0.0/8", seconds: float = TOTAL_SECONDS
) -> Sender:
    tls = ssl.create_default_context(cafile=folder / "hooks" / "ca.pem")
    return Sender(tls, parse_networks(allowed), resolve, 1, seconds)


def send(sender: Sender, port: int, host: str = "localhost", *, secure: bool = True) -> Outcome:
    return sender.send(Parts("", secure, host, port, "/hook"), {"webhook-id": "msg_1"}, b'{"a": 1}')


def test_what_is_taken_arrives_as_it_was_sent(folder: Path, receiver: Receiver):
    outcome = send(sender(folder), receiver.port)

    (got,) = receiver.received
    assert outcome == Outcome(None, 204)
    assert (got.path, got.body, got.id) == ("/hook", b'{"a": 1}', "msg_1")
    assert got.fields["host"] == f"localhost:{receiver.port}"


def test_the_environment_names_no_proxy(folder: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch):
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")

    assert send(sender(folder), receiver.port).failure is None


@pytest.mark.parametrize("code", [301, 302, 307, 308, 400, 404, 410, 429, 500, 503])
def test_whatever_is_not_2xx_failed_and_redirects_are_not_followed(folder: Path, receiver: Receiver, code: int):
    receiver.answers[:] = [status(code, Location=receiver.url)]

    assert send(sender(folder), receiver.port) == Outcome(Failure.STATUS, code)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120), ("999999999", 24 * 3600), ("soon", None), ("Thu, 01 Jan 1970 00:00:00 GMT", 0)],
)
def test_retry_after_is_read_within_reason(folder: Path, receiver: Receiver, value: str, seconds: int | None):
    receiver.answers[:] = [status(503, Retry_After=value)]

    assert send(sender(folder), receiver.port).retry_after_seconds == seconds


def test_a_name_is_resolved_once_and_what_was_checked_is_what_is_connected_to(folder: Path, receiver: Receiver):
    # Given a name that stands for another address each time that it is asked for
    asked: list[str] = []

    def rebinding(host: str, port: int) -> list[str]:  # noqa: ARG001 - as above
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    # When something is sent, with the name in SNI and Host
    outcome = send(sender(folder, rebinding), receiver.port)

    # Then nobody asked twice
    assert (outcome.failure, asked) == (None, ["localhost"])


@pytest.mark.parametrize(
    "found", [["127.0.0.1"], ["169.254.169.254"], ["8.8.8.8", "10.0.0.1"], ["::ffff:127.0.0.1"], []], ids=str
)
def test_a_name_behind_which_one_address_is_not_public_is_not_gone_to(
    folder: Path, receiver: Receiver, found: list[str]
):
    outcome = send(sender(folder, lambda host, port: found, allowed=""), receiver.port)  # noqa: ARG005 - as above

    assert outcome == Outcome(Failure.ADDRESS)
    assert receiver.received == []


def test_an_unknown_name_and_a_private_one_look_alike(folder: Path):
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, f"{host}:{port}")

    assert send(sender(folder, unknown), 443) == send(sender(folder, here, allowed=""), 443)


def test_a_certificate_that_names_somebody_else_is_not_taken(folder: Path, receiver: Receiver):
    assert send(sender(folder), receiver.port, "hooks.example.com") == Outcome(Failure.TLS)
    assert receiver.received == []


def test_nobody_there_is_a_failed_connection(folder: Path):
    assert send(sender(folder), free_port()) == Outcome(Failure.CONNECTION)


def test_the_system_resolves_this_machine():
    assert set(system_addresses("localhost", 443)) <= {"127.0.0.1", "::1"}


@contextmanager
def answering(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A plain TCP server that reads one request and then behaves as told; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                try:
                    behave(connection)
                except OSError:
                    return

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


def drip(piece: bytes) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        for _ in range(1000):
            connection.sendall(piece)
            time.sleep(0.01)

    return behave


def flood(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    for _ in range(1000):
        connection.sendall(b"a" * MOST_BYTES)


def silence(connection: socket.socket) -> None:
    connection.recv(1)


@pytest.mark.parametrize(
    ("behave", "expected"),
    [
        (drip(b"a"), Outcome(Failure.TIMEOUT)),
        (silence, Outcome(Failure.TIMEOUT)),
        (lambda one: one.sendall(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * MOST_BYTES), Outcome(Failure.ANSWER)),
        (lambda one: one.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n"), Outcome(Failure.ANSWER)),
        (lambda one: one.sendall(b"HTTP/1.1 200"), Outcome(Failure.ANSWER)),
        (lambda one: one.sendall(b"HTTP/1.1 999999 OK\r\n\r\n"), Outcome(Failure.ANSWER)),
        (lambda one: one.sendall(b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 204 No\r\n\r\n"), Outcome(None, 204)),
        (drip(b"\r\n"), Outcome(None, 200)),
        (flood, Outcome(None, 200)),
    ],
    ids=["drips", "silent", "endless head", "no HTTP", "half an answer", "odd status", "early", "drips body", "flood"],
)
def test_a_receiver_takes_only_so_long_and_so_much(
    folder: Path,
    behave: Callable[[socket.socket], None],
    expected: Outcome,
    receiver: Receiver,  # noqa: ARG001 - its authority is read
):
    with answering(behave) as port:
        assert send(sender(folder, seconds=LIMIT_SECONDS), port, secure=False) == expected


def test_a_lookup_that_hangs_is_not_waited_for(folder: Path, receiver: Receiver):  # noqa: ARG001 - as above
    done = threading.Event()

    def hanging(host: str, port: int) -> list[str]:  # noqa: ARG001 - as above
        done.wait(10)
        return []

    outcome = send(sender(folder, hanging, seconds=LIMIT_SECONDS), 443)
    done.set()

    assert outcome == Outcome(Failure.TIMEOUT)


def test_lookups_that_hang_longer_than_an_attempt_fail_no_other_and_none_is_made_for_nobody(
    folder: Path, receiver: Receiver
):
    done = threading.Event()
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:  # noqa: ARG001 - as above
        asked.append(host)
        if host != "localhost":
            done.wait(20)
        return ["127.0.0.1"]

    slow = sender(folder, resolve, seconds=LIMIT_SECONDS)
    for n in range(LOOKUPS_A_THREAD - 1):
        assert send(slow, receiver.port, f"slow{n}") == Outcome(Failure.TIMEOUT)
    assert send(slow, receiver.port) == Outcome(None, 204)
    for n in range(3):
        send(slow, receiver.port, f"late{n}")
    done.set()
    assert send(slow, receiver.port) == Outcome(None, 204)

    assert [host for host in asked if host.startswith("late")] == ["late0"]


def test_a_receiver_that_answers_late_failed(folder: Path, receiver: Receiver):
    done = threading.Event()

    def late(handler: BaseHTTPRequestHandler) -> None:
        done.wait(10)
        status(204)(handler)

    receiver.answers[:] = [late]
    outcome = send(sender(folder, seconds=LIMIT_SECONDS), receiver.port)
    done.set()

    assert outcome == Outcome(Failure.TIMEOUT)
