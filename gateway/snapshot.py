"""Rights, signing keys and catalog in memory, so that a prediction is admitted without SQL.

A thread reads one generation number twice a second and, when it moved, rights and catalog as wholes. A picture older
than five seconds is refused: a gateway that cannot learn of a withdrawn right must not serve on it.
"""

from __future__ import annotations

import logging
import threading
import time

from auth.forward_clock import ForwardClock
from auth.rights import Rights, load_rights
from auth.signing_keys import SigningKeys
from gateway.errors import RightsUnavailable
from gateway.key_keeping import KeyKeeping
from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable
from model_store.generation import read_moment
from model_store.registry import Catalog, load_catalog
from workers.lanes import Lane
from workers.webhooks.endpoints import told_clients

log = logging.getLogger(__name__)

READ_SECONDS = 0.5
STALE_SECONDS = 5.0


class Snapshot:
    """What this gateway knows of rights and models; `rights` and `catalog` are immutable and replaced as wholes."""

    def __init__(self, sessions: Sessions, keys: SigningKeys, keeping: KeyKeeping) -> None:
        self._sessions = sessions
        self._keys = keys
        self._keeping = keeping
        self._generation = -1
        self.clock = ForwardClock()
        self._reading = threading.Lock()
        self._read_at = float("-inf")
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.rights = Rights({})
        self.catalog = Catalog({})
        # Clients that are told of their jobs' ends by webhook.
        self.told: frozenset[str] = frozenset()
        # The database's clock in milliseconds, and this process's in seconds a little before it was read.
        self._clock = (0, 0.0)

    def start(self) -> None:
        """Read for the first time, then keep reading in a thread; raises DatabaseUnavailable, KeysInvalid."""
        self._keeping.begin()
        self.refresh()
        self._thread = threading.Thread(target=self._keep_reading, name="snapshot", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def refresh(self) -> None:
        """Look once; raises DatabaseUnavailable."""
        # One at a time: of two that overlap, the one with the older picture could come last.
        with self._reading:
            self._read()

    def require_fresh(self) -> None:
        """Raises RightsUnavailable where the last successful look is too long ago."""
        if time.monotonic() - self._read_at > STALE_SECONDS:
            raise RightsUnavailable(
                "rights could not be read from the database for 5 seconds; try again shortly", retry_after_seconds=2
            )

    @property
    def fresh(self) -> bool:
        return time.monotonic() - self._read_at <= STALE_SECONDS

    def now_ms(self) -> int:
        """The database's clock in milliseconds since 1970, without asking it: as it was read last, moved on since.

        A little ahead, by what that question took, never behind: what expires does so too early rather than too late.
        The clock of this machine is not involved.
        """
        read, at = self._clock
        return read + int((time.monotonic() - at) * 1000)

    def weight(self, lane: Lane) -> float:
        """By which a lane shares the workers with others."""
        return self.rights.weight(lane.client_id, lane.model, lane.version)

    def _keep_reading(self) -> None:
        away = False
        while not self._stop.is_set():
            self._stop.wait(READ_SECONDS)
            try:
                self.refresh()
                away = False
            except DatabaseUnavailable:
                if not away:
                    log.warning("the database does not answer; rights grow stale")
                away = True
            except Exception:  # the thread's edge: a gateway that stops reading would refuse for ever
                log.exception("rights could not be read")

    def _read(self) -> None:
        asked_at = time.monotonic()
        with transaction(self._sessions, write=False) as session:
            generation, now = read_moment(session)
            if generation != self._generation:
                # All belong to one generation: they are read in the transaction that read the number. The keys come
                # first: a new picture of rights is what tells admission to look at the key of a known token again.
                self._keys.read(session)
                rights, catalog = load_rights(session), load_catalog(session)
                self.told = told_clients(session)
                self.rights, self.catalog, self._generation = rights, catalog, generation
        self._clock = (now, asked_at)
        self.clock.observe(now / 1000)
        self._read_at = asked_at
