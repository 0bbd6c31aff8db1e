"""What is to be removed from a bucket, removed many at a time by a thread: nobody waits for a round trip to each.

A removal may be lost, when a process ends or the bucket is away. What it was for is then something that belongs to
nobody, which the sweep of the store finds.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from model_store.errors import SluiceError

log = logging.getLogger(__name__)

MOST_WAITING = 100_000
AT_ONCE = 1000
LINGER_SECONDS = 0.05


class Removals:
    """Removes what it is given with `remove`, soon."""

    def __init__(self, remove: Callable[[Sequence[str]], None]) -> None:
        self._remove = remove
        self._waiting: deque[str] = deque(maxlen=MOST_WAITING)
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._pid = os.getpid()

    def add(self, key: str) -> None:
        """Have an object removed; the oldest of too many that wait are left to the sweep."""
        if self._pid != os.getpid():
            # The lock may have been held, and the thread is gone, where this process was forked from.
            self.__init__(self._remove)  # type: ignore[misc] # it is another process's object from here on
        with self._lock:
            self._waiting.append(key)
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._run, name="store-removals", daemon=True)
                self._worker.start()

    def finish(self, seconds: float = 10.0) -> None:
        """Wait until what was added is removed, or given up."""
        worker = self._worker
        if worker is not None:
            worker.join(seconds)

    def _run(self) -> None:
        while keys := self._page():
            try:
                self._remove(keys)
            except (SluiceError, OSError) as error:
                log.info("%d objects are left to the sweep of the store: %s", len(keys), error)

    def _page(self) -> list[str]:
        # Together with what comes in the same moment.
        threading.Event().wait(LINGER_SECONDS)
        with self._lock:
            keys = [self._waiting.popleft() for _ in range(min(len(self._waiting), AT_ONCE))]
            if not keys:
                self._worker = None
        return keys
