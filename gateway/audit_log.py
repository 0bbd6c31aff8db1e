"""The audit log's thread: writes what waits in memory, seals, signs heads, forgets what is old.

Every gateway has one. Requests never wait for it.
"""

from __future__ import annotations

import logging
import threading
import time

from sqlalchemy import select

from auth.audit import Entry, record_past
from auth.audit_buffer import AuditBuffer
from auth.audit_chain import PAGE_ROWS
from auth.audit_retention import PAGE_ROWS as RETENTION_ROWS
from auth.audit_settings import AuditSettings
from auth.audit_tables import AuditEntry
from auth.errors import KeysUnavailable
from auth.keys import KeyRing, KeySource, SigningKey
from gateway.audit_forwarding import SyslogForwarding
from gateway.audit_signing import AuditSigning
from model_store.database import Sessions, clock_ms, transaction
from model_store.errors import DatabaseUnavailable
from monitoring.metrics import AUDIT_LAG
from monitoring.syslog import Syslog, SyslogAddress

log = logging.getLogger(__name__)

TURN_SECONDS = 0.5
RETENTION_SECONDS = 3600.0
PAGES_A_TURN = 20


class AuditLog:
    """Takes entries at once and writes them twice a second; all else happens in its thread."""

    def __init__(self, sessions: Sessions, keys: KeySource, settings: AuditSettings, name: str) -> None:
        self._sessions = sessions
        self._keys = keys
        self._settings = settings
        self._buffer = AuditBuffer()
        self._signing = AuditSigning(sessions, self._buffer.add)
        self._forwarding: SyslogForwarding | None = None
        if settings.audit_syslog is not None:
            syslog = Syslog(SyslogAddress.parse(settings.audit_syslog))
            self._forwarding = SyslogForwarding(sessions, syslog, name)
        self._forget_at = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.predictions = settings.audit_predictions
        """The share of predictions that get an entry."""

    def add(self, entry: Entry) -> None:
        """Write this entry within half a second; for whatever happens outside of a transaction."""
        self._buffer.add(entry)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        if self._forwarding is not None:
            self._forwarding.start()

    def close(self) -> None:
        """Write, seal and sign what there is, and end; what the database does not take by then is lost."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
            try:
                self.turn(last=True)
            except DatabaseUnavailable:
                log.warning("the audit log could not be closed: the database does not answer")
        if self._forwarding is not None:
            self._forwarding.close()

    def turn(self, *, last: bool = False) -> None:
        """One round of whatever is due; raises DatabaseUnavailable."""
        self._write(all_of_it=last)
        waiting_seconds = self._waiting_seconds()
        AUDIT_LAG.labels("sealing").set(waiting_seconds or 0.0)
        ring = self._keys.ring
        try:
            signing: SigningKey | None = ring.signing
        except KeysUnavailable:
            # For seconds after a compromise; the next turn tries again.
            signing = None
        goes_on = self._signing.look(ring)
        if waiting_seconds is not None:
            self._seal(signing)
        if goes_on and signing is not None:
            self._signing.sign(signing, ring, 0.0 if last else self._settings.audit_head_seconds)
            self._forget(signing, ring)

    def _run(self) -> None:
        away = False
        while not self._stop.is_set():
            try:
                self.turn()
                away = False
            except DatabaseUnavailable:
                if not away:
                    log.warning("the database does not answer; the audit log waits")
                away = True
            except Exception:  # the thread's edge: without it nothing would be sealed any more
                log.exception("a turn of the audit log failed")
            self._stop.wait(TURN_SECONDS)

    def _write(self, *, all_of_it: bool) -> None:
        taken = self._buffer.take(all_of_it=all_of_it)
        if not taken:
            return
        try:
            with transaction(self._sessions) as session:
                record_past(session, self._buffer.aged(taken))
        except DatabaseUnavailable:
            self._buffer.put_back(taken)
            raise

    def _waiting_seconds(self) -> float | None:
        """How long the oldest entry without a place has waited; None where there is none."""
        with transaction(self._sessions, write=False) as session:
            oldest = select(AuditEntry.at).where(AuditEntry.number.is_(None)).order_by(AuditEntry.id).limit(1)
            at = session.scalar(oldest)
            return None if at is None else max(0.0, (clock_ms(session) - at) / 1000)

    def _seal(self, first_by: SigningKey | None) -> None:
        for _ in range(PAGES_A_TURN):
            if self._signing.seal(PAGE_ROWS, first_by) < PAGE_ROWS:
                return

    def _forget(self, signing: SigningKey, ring: KeyRing) -> None:
        days = self._settings.audit_days
        if not days or time.monotonic() < self._forget_at:
            return
        for _ in range(PAGES_A_TURN):
            gone = self._signing.forget(days, signing, ring)
            if gone < RETENTION_ROWS:
                self._forget_at = time.monotonic() + RETENTION_SECONDS
                return
