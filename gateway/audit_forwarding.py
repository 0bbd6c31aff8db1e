"""Hands sealed entries and signed heads on to syslog, in their order, each at least once, from a thread of its own.

A collector that hangs holds up nothing but this thread; the log in SQL is what it reads from when it goes on.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from dataclasses import asdict

from sqlalchemy import select, update

from auth.audit import Outcome
from auth.audit_chain import COLUMNS, ROW, canonical
from auth.audit_heads import of_row
from auth.audit_tables import AuditChain, AuditEntry, AuditHead
from model_store.database import Sessions, clock_ms, transaction
from model_store.errors import DatabaseUnavailable
from monitoring.metrics import AUDIT_LAG
from monitoring.syslog import SEVERITY_NOTICE, SEVERITY_WARNING, Syslog
from workers.roles import hold

log = logging.getLogger(__name__)

ROLE = "audit-syslog"
ROLE_SECONDS = 10
PAGE_ROWS = 500
MOST_HEADS = 100
TURN_SECONDS = 0.5
PAUSE_SECONDS = 5.0


class SyslogForwarding:
    """One process of many sends, under a lease. How far it came stands in SQL, so that the next one goes on there."""

    def __init__(self, sessions: Sessions, syslog: Syslog, name: str) -> None:
        self._sessions = sessions
        self._syslog = syslog
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="audit-syslog", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout=3)
        self._syslog.close()

    def turn(self) -> bool:
        """Send a page; returns whether there may be more. Raises OSError where the collector does not take it.

        No transaction is open while something is sent: a collector that hangs must hold up nobody else.
        """
        with transaction(self._sessions, write=False) as session:
            chain = session.scalars(select(AuditChain).where(AuditChain.id == ROW)).one()
            new_heads = select(AuditHead).where(AuditHead.number > chain.sent_head).order_by(AuditHead.number)
            heads = [of_row(row) for row in session.scalars(new_heads.limit(MOST_HEADS))]
            if chain.sent == chain.number and not heads:
                return False
            # What retention took away before it was sent cannot be sent any more.
            wanted = select(*COLUMNS, AuditEntry.hash).where(AuditEntry.number > chain.sent).order_by(AuditEntry.number)
            entries = [dict(row) for row in session.execute(wanted.limit(PAGE_ROWS)).mappings()]
        with transaction(self._sessions) as session:
            if not hold(session, ROLE, self._name, ROLE_SECONDS):
                return False
        sent, sent_head = chain.sent, chain.sent_head
        try:
            for entry in entries:
                severity = SEVERITY_WARNING if entry["outcome"] == Outcome.REFUSED else SEVERITY_NOTICE
                text = canonical({"kind": "entry", **entry})
                self._syslog.send(text, at_ms=entry["at"], message_id="entry", severity=severity)
                sent = entry["number"]
            for head in heads:
                if head.number <= sent:
                    text = canonical({"kind": "head", **asdict(head)})
                    self._syslog.send(text, at_ms=head.at, message_id="head", severity=SEVERITY_NOTICE)
                    sent_head = head.number
        finally:
            self._remember(sent, sent_head)
        return len(entries) == PAGE_ROWS

    def _run(self) -> None:
        failing = False
        while not self._stop.is_set():
            pause = TURN_SECONDS
            try:
                while self.turn() and not self._stop.is_set():
                    pass
                failing = False
            except DatabaseUnavailable:
                pause = PAUSE_SECONDS
            except OSError as error:
                if not failing:
                    log.warning("syslog does not take the audit log: %s", error.strerror or type(error).__name__)
                failing, pause = True, PAUSE_SECONDS
            except Exception:  # the thread's edge: nothing would be forwarded any more
                log.exception("the audit log could not be forwarded")
                pause = PAUSE_SECONDS
            self._show_lag()
            self._stop.wait(pause)

    def _show_lag(self) -> None:
        with contextlib.suppress(DatabaseUnavailable), transaction(self._sessions, write=False) as session:
            sent = session.scalar(select(AuditChain.sent).where(AuditChain.id == ROW)) or 0
            oldest = select(AuditEntry.at).where(AuditEntry.number > sent).order_by(AuditEntry.number).limit(1)
            at = session.scalar(oldest)
            AUDIT_LAG.labels("syslog").set(0.0 if at is None else max(0.0, (clock_ms(session) - at) / 1000))

    def _remember(self, sent: int, sent_head: int) -> None:
        with transaction(self._sessions) as session:
            # Never backwards: a process that was slow may have been overtaken by the one after it.
            further = update(AuditChain).where(AuditChain.id == ROW, AuditChain.sent <= sent)
            session.execute(further.values(sent=sent, sent_head=sent_head))
