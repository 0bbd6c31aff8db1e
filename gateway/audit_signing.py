"""Signs the audit log's end, and lets old entries go, but only as long as the log goes on from what this process knows.

What a process knows is in its memory alone: whoever changes the database cannot change that with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from auth.audit import Entry, Outcome
from auth.audit_chain import LogChanged, locked_chain, seal
from auth.audit_continuity import Known, begin, follow
from auth.audit_heads import is_due, put_head
from auth.audit_retention import forget_old
from auth.audit_verification import one_picture
from auth.keys import KeyRing, SigningKey
from model_store.database import Sessions, clock_ms, transaction
from monitoring.metrics import AUDIT_CHANGED

log = logging.getLogger(__name__)

HEAD_ENTRIES = 10_000
AGAIN_SECONDS = 10.0
ACT = "refuse_to_sign"


class AuditSigning:
    """Used by one thread. `add` takes the entry that says that the log was changed."""

    def __init__(self, sessions: Sessions, add: Callable[[Entry], None]) -> None:
        self._sessions = sessions
        self._add = add
        self._known: Known | None = None
        self._refused = ""
        self._again_at = 0.0

    def look(self, ring: KeyRing) -> bool:
        """Whether the log goes on from what is known, up to its end as it is now; raises DatabaseUnavailable."""
        if time.monotonic() < self._again_at:
            return False
        try:
            with transaction(self._sessions, write=False) as session:
                one_picture(session)
                self._known = follow(session, self._known or begin(session, ring.ever), ring.ever)
        except LogChanged as error:
            self._refuse(str(error))
            return False
        if self._refused:
            log.warning("the audit log is as it was known again, and signed again")
        self._refused = ""
        AUDIT_CHANGED.set(0)
        return True

    def seal(self, limit: int, first_by: SigningKey | None) -> int:
        """Seals entries, the very first ones with a head over them at once: without one, a log was changed.

        Returns how many; without a key to sign with, none before the first head. Raises DatabaseUnavailable.
        """
        with transaction(self._sessions) as session:
            chain = locked_chain(session)
            is_first = chain is not None and chain.number == 0 and not self._refused
            if chain is None or (is_first and first_by is None):
                return 0
            sealed = seal(session, limit)
            if is_first and sealed and first_by is not None:
                head = put_head(session, chain, clock_ms(session), first_by)
                log.info("audit head %s", head.line())
        return sealed

    def sign(self, signing: SigningKey, ring: KeyRing, seconds: float) -> None:
        """Signs the end where that is due; raises DatabaseUnavailable."""
        try:
            # Looked at first: on SQLite a transaction that might write locks out all others.
            with transaction(self._sessions, write=False) as session:
                if not is_due(session, signing, seconds=seconds, entries=HEAD_ENTRIES):
                    return
            with transaction(self._sessions) as session:
                chain = locked_chain(session)
                if chain is None or not is_due(session, signing, seconds=seconds, entries=HEAD_ENTRIES):
                    return
                self._known = follow(session, self._known or begin(session, ring.ever), ring.ever)
                head = put_head(session, chain, clock_ms(session), signing)
        except LogChanged as error:
            self._refuse(str(error))
            return
        # In the log as well, which whoever can write to the database cannot change.
        log.info("audit head %s", head.line())

    def forget(self, days: int, signing: SigningKey, ring: KeyRing) -> int:
        """Lets a page of entries older than `days` go; returns how many. Raises DatabaseUnavailable."""
        try:
            with transaction(self._sessions) as session:
                if locked_chain(session) is None:
                    return 0
                self._known = follow(session, self._known or begin(session, ring.ever), ring.ever)
                return forget_old(session, days, signing)
        except LogChanged as error:
            self._refuse(str(error))
            return 0

    def _refuse(self, found: str) -> None:
        self._again_at = time.monotonic() + AGAIN_SECONDS
        AUDIT_CHANGED.set(1)
        if found != self._refused:
            log.error("the audit log was changed and is not signed any more: %s; see `sluice audit verify`", found)
            self._add(Entry(ACT, outcome=Outcome.REFUSED, reason="audit_log_changed", detail={"found": found}))
        self._refused = found
