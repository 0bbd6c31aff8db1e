"""Keeps the lease of a file that is being read: to skip what was read before, or to hash a result, may take a while."""

from __future__ import annotations

import logging
import threading
from typing import Self

from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable
from workers import jobs

log = logging.getLogger(__name__)

RENEW_SECONDS = 2.0


class FileLease:
    """Renews in a thread of its own while it is entered; `lost` is set once the job is not this worker's any more."""

    def __init__(self, sessions: Sessions, number: int, worker: str) -> None:
        self._sessions = sessions
        self._number = number
        self._worker = worker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="file-lease", daemon=True)
        self.lost = threading.Event()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(RENEW_SECONDS):
            try:
                with transaction(self._sessions) as session:
                    held = jobs.renew(session, [self._number], self._worker)
            except DatabaseUnavailable:
                log.warning("the lease of a file could not be renewed: the database does not answer")
                continue
            if not held:
                self.lost.set()
                return
