"""What a process remembers of the audit log, so that it signs no log that was rewritten behind its back.

Whoever writes to the database can compute the chain anew. A process that signed whatever stands there would sign that
as well; so it keeps in memory what it saw last, and goes on only from there.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from auth.audit_chain import BEGINNING, COLUMNS, PAGE_ROWS, Link, LogChanged, ends, hash_after
from auth.audit_heads import Head, newest
from auth.audit_tables import AuditEntry


@dataclass(frozen=True, slots=True)
class Known:
    """Where the log begins, and up to where a process has seen it."""

    before: Link
    end: Link


def begin(session: Session, kids: Set[str]) -> Known:
    """What a process goes by that knows nothing yet: the newest head, signed with one of these keys.

    Raises LogChanged where it is none of theirs, is not over what stands there, or is missing though there are entries.
    """
    before, end = ends(session)
    head = newest(session)
    if head is None:
        sealed = session.scalar(select(func.max(AuditEntry.number)))
        if end != BEGINNING or before != BEGINNING or sealed is not None:
            raise LogChanged("there are entries, and no head is over any of them")
        return Known(BEGINNING, BEGINNING)
    if not _is_own(head, kids):
        raise LogChanged(f"the newest head, over entry {head.number}, is not signed with a key of this installation")
    if head.before != before:
        raise LogChanged(f"the log is said to begin after entry {before.number}, the newest head says otherwise")
    if head.end != before:
        _require(session, head.end)
    return Known(head.before, head.end)


def follow(session: Session, known: Known, kids: Set[str]) -> Known:
    """The same up to the end as it is now. Raises LogChanged where the log does not go on from what is known."""
    before, end = ends(session)
    if before != known.before:
        # Retention moves the beginning, and signs a head that says so in the same transaction.
        head = newest(session)
        if head is None or head.before != before or before.number < known.before.number or not _is_own(head, kids):
            raise LogChanged(f"the log is said to begin after entry {before.number}, which no head of ours says")
    start = known.end if known.end.number >= before.number else before
    if end.number < start.number:
        raise LogChanged(f"the log ends at entry {end.number}; there was an entry {start.number}")
    if start.number > before.number:
        _require(session, start)
    elif start != before:
        raise LogChanged(f"the log begins after entry {before.number}, which was another one before")
    if walk(session, start, end.number) != end:
        raise LogChanged(f"entry {end.number} is not the one that was sealed last")
    return Known(before, end)


def walk(session: Session, start: Link, last: int) -> Link:
    """Follows the chain from a place up to an entry's number, each hash computed anew; says where it came to.

    Raises LogChanged where an entry is missing, or is not what was sealed.
    """
    at = start
    while at.number < last:
        wanted = select(*COLUMNS, AuditEntry.hash).where(AuditEntry.number > at.number, AuditEntry.number <= last)
        page = session.execute(wanted.order_by(AuditEntry.number).limit(PAGE_ROWS)).mappings().all()
        if not page:
            raise LogChanged(f"entry {at.number + 1} is missing")
        for row in page:
            at = _step(at, {**row})
    return at


def _step(at: Link, fields: dict[str, str | int | None]) -> Link:
    stored, number = fields.pop("hash"), at.number + 1
    if fields["number"] != number or stored != hash_after(at.hash, fields):
        raise LogChanged(f"entry {number} is missing, or is not what was sealed there")
    return Link(number, stored)


def _require(session: Session, link: Link) -> None:
    stored = session.scalar(select(AuditEntry.hash).where(AuditEntry.number == link.number))
    if stored != link.hash:
        raise LogChanged(f"entry {link.number} is not the one that stood there before")


def _is_own(head: Head, kids: Set[str]) -> bool:
    return head.is_genuine() and head.kid in kids
