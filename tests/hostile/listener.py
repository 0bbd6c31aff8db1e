"""A canary: a port that somebody listens on, and that nobody may ever call."""

from __future__ import annotations

import socket
import threading


class Listener:
    """Notes every connection to its port until it is closed."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self.calls: list[str] = []
        self._thread = threading.Thread(target=self._listen, name="canary", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _listen(self) -> None:
        while True:
            try:
                connection, address = self._socket.accept()
            except OSError:  # closed
                return
            self.calls.append(str(address))
            connection.close()
