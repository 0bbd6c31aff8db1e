"""Holding the work of one preparation: a thread renews the lease for as long as this process lives."""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Self

from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable
from workers.preparation import schedule
from workers.preparation.schedule import Claim

log = logging.getLogger(__name__)


class LeaseLost(Exception):
    """Another worker has taken over: whatever this one still does must not be written down."""


class Lease:
    """A claim that is kept alive from a thread until the block ends."""

    def __init__(self, sessions: Sessions, claim: Claim, renew_seconds: float = schedule.RENEW_SECONDS) -> None:
        self.claim = claim
        self._sessions = sessions
        self._renew_seconds = renew_seconds
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="preparation-lease", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def announce(self, step: str) -> None:
        """Shows which step begins; raises LeaseLost. That the database is away only costs the display."""
        if self._lost.is_set():
            raise LeaseLost
        try:
            with transaction(self._sessions) as session:
                held = schedule.step(session, self.claim, step)
        except DatabaseUnavailable:
            return
        if not held:
            raise LeaseLost

    def _keep(self) -> None:
        while not self._ended.wait(self._renew_seconds):
            try:
                with transaction(self._sessions) as session:
                    held = schedule.renew(session, self.claim)
            except DatabaseUnavailable:
                log.info("a preparation's lease could not be renewed: the database is away")
                continue
            if not held:
                self._lost.set()
                return
