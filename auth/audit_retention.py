"""Old entries leave the audit log from its beginning, and a signed head says from where on the rest stands."""

from __future__ import annotations

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from auth.audit import Entry, record
from auth.audit_chain import NOTHING, Link, LogChanged, locked_chain
from auth.audit_continuity import walk
from auth.audit_heads import put_head
from auth.audit_tables import AuditEntry, AuditHead
from auth.keys import SigningKey
from model_store.database import clock_ms

PAGE_ROWS = 2000
DAY_MS = 86_400_000
ACT = "expire_audit_entries"


def forget_old(session: Session, days: int, signing: SigningKey) -> int:
    """Takes away at most 2,000 sealed entries older than `days`, all from the beginning; returns how many.

    The head that is signed in the same transaction names the last of them with its hash: so the rest verifies as
    before, and nobody without the key can shorten the log the same way. That it happened is an entry, too.
    Raises LogChanged where they are not what was sealed: a time that was edited must not make an entry leave.
    """
    chain = locked_chain(session)
    if chain is None:
        return 0
    now = clock_ms(session)
    wanted = select(AuditEntry.number, AuditEntry.hash, AuditEntry.at).where(AuditEntry.number > chain.before_number)
    last: Link | None = None
    for number, value, at in session.execute(wanted.order_by(AuditEntry.number).limit(PAGE_ROWS)):
        if at >= now - days * DAY_MS:
            break
        last = Link(number or 0, value or NOTHING)
    if last is None:
        return 0
    if walk(session, Link(chain.before_number, chain.before_hash), last.number) != last:
        raise LogChanged(f"entry {last.number} is not what was sealed there")
    gone = last.number - chain.before_number
    chain.before_number, chain.before_hash = last.number, last.hash
    session.execute(delete(AuditEntry).where(AuditEntry.number <= chain.before_number))
    session.execute(delete(AuditHead).where(AuditHead.number <= chain.before_number))
    put_head(session, chain, now, signing)
    record(session, Entry(ACT, detail={"entries": gone, "up_to": chain.before_number, "days": days}))
    return gone
