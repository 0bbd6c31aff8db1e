"""A way to a gateway on which answers are lost: connections that break after the request has arrived."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

from tests.live_gateway import LiveGateway


class Hazard:
    """A connection to a gateway that breaks when it is told to: after the request has arrived, before the answer."""

    def __init__(self, url: str, breaks: dict[bytes, int]) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._gateway = (host, int(port))
        self._breaks = breaks
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        self.broken = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._server.accept()
                far, lost = socket.create_connection(self._gateway), threading.Event()
                for carry in (self._carry, self._carry_back):
                    threading.Thread(target=carry, args=(near, far, lost), daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _carry(self, near: socket.socket, far: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := near.recv(65536):
                for word, left in self._breaks.items():
                    if left and word in data:
                        self._breaks[word] -= 1
                        self.broken += 1
                        lost.set()
                far.sendall(data)
        _end(far)

    def _carry_back(self, near: socket.socket, far: socket.socket, lost: threading.Event) -> None:
        with contextlib.suppress(OSError):
            # The gateway has answered, but nobody hears of it.
            while (data := far.recv(65536)) and not lost.is_set():
                near.sendall(data)
        _end(near)
        _end(far)


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextlib.contextmanager
def hazard(gateway: LiveGateway | str, breaks: dict[bytes, int]) -> Iterator[Hazard]:
    made = Hazard(gateway if isinstance(gateway, str) else gateway.url, breaks)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join(10)
