"""A crowd of callers who hold connections and hardly send: some nothing, some a head, some a body, a byte at a time."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Sequence

from benchmarks.failures import BenchmarkFailed
from benchmarks.system import HOST

# slowhttptest's own choice is 10 seconds; this keeps more of them in the gateway's event loop.
DRIP_SECONDS = 2.0
SPARE_DESCRIPTORS = 256
LOOK_SECONDS = 0.05


class SlowCallers:
    """Keeps `number` connections open to a port; whichever the gateway closes is opened again."""

    def __init__(self, port: int, number: int, beginnings: Sequence[bytes]) -> None:
        self._port = port
        self._number = number
        self._beginnings = beginnings
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="slow callers", daemon=True)
        self.reopened = 0

    def start(self) -> None:
        """Returns when all are connected; raises BenchmarkFailed where the system allows fewer."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        needed = self._number + SPARE_DESCRIPTORS
        if hard != resource.RLIM_INFINITY and hard < needed:
            raise BenchmarkFailed(f"{self._number} connections need {needed} open files, and {hard} are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(needed, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))
        for place in range(self._number):
            self._open(place)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            self._let_go(key)
        self._selector.close()

    def _open(self, place: int) -> None:
        made = socket.create_connection((HOST, self._port))
        made.sendall(self._beginnings[place % len(self._beginnings)])
        self._selector.register(made, selectors.EVENT_READ, place)

    def _let_go(self, key: selectors.SelectorKey) -> None:
        self._selector.unregister(key.fileobj)
        assert isinstance(key.fileobj, socket.socket)
        key.fileobj.close()

    def _run(self) -> None:
        drip_at = time.monotonic() + DRIP_SECONDS
        while not self._ended.is_set():
            for key, _ in self._selector.select(LOOK_SECONDS):
                # An answer, which is a refusal, or the end.
                self._let_go(key)
                self._open(key.data)
                self.reopened += 1
            if time.monotonic() >= drip_at:
                drip_at += DRIP_SECONDS
                self._drip()

    def _drip(self) -> None:
        for key in self._selector.get_map().values():
            if self._beginnings[key.data % len(self._beginnings)]:
                assert isinstance(key.fileobj, socket.socket)
                # The next look finds what became of it.
                with contextlib.suppress(OSError):
                    key.fileobj.send(b"x")


@contextlib.contextmanager
def slow_callers(port: int, number: int, beginnings: Sequence[bytes]) -> Iterator[SlowCallers]:
    """They are there for the length of the block."""
    crowd = SlowCallers(port, number, beginnings)
    crowd.start()
    try:
        yield crowd
    finally:
        crowd.close()
