"""Finding what was changed in an audit log: in its database, or in a file that was exported from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from auth.audit_chain import BEGINNING, COLUMNS, NOTHING, Fields, Link, LogChanged, Value, ends, hash_after
from auth.audit_heads import Head, newest, of_row
from auth.audit_tables import AuditEntry, AuditHead

PAGE_ROWS = 2000
MOST_FAULTS = 20
HASH = re.compile(r"[0-9a-f]{64}")

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Trust:
    """What is known from elsewhere: thumbprints of the gateway's keys (None: they are not known), and heads."""

    kids: frozenset[str] | None = None
    heads: tuple[Head, ...] = ()


@dataclass(slots=True)
class Findings:
    """What a verification found; the log is as it was written where `faults` is empty."""

    before: Link
    end: Link
    entries: int = 0
    unsealed: int = 0
    signed_by: Head | None = None
    confirmed: int | None = None  # up to this entry a known key, or a known head, says that it is the gateway's log
    faults: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """Notes a fault; of a log that is wrong all over, the first ones say enough."""
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(text)


class Walk:
    """Follows the chain from one place on, an entry or a head at a time."""

    def __init__(self, before: Link, trust: Trust) -> None:
        self.found = Findings(before, before)
        self._trust = trust
        self._known: dict[int, list[Head]] = {}
        for head in trust.heads:
            if not head.is_genuine():
                self.found.add(f"the known head over entry {head.number} is not what was signed: its file was changed")
            self._known.setdefault(head.number, []).append(head)
        if self._known and max(self._known) < before.number:
            self.found.add(
                f"the known head was signed over entry {max(self._known)}, before this log begins: use a later"
            )
        self._compare()

    def entry(self, fields: Fields, stored_hash: Value) -> None:
        """The next entry, and the hash that stands beside it."""
        at, number = self.found.end, fields["number"]
        if number != at.number + 1:
            self.found.add(f"after entry {at.number} stands entry {number}: what was between is missing or moved")
        elif stored_hash != hash_after(at.hash, fields):
            self.found.add(f"entry {number} is not what was sealed there, or does not follow the one before it")
        self.found.entries += 1
        self.found.end = Link(_number(number, at.number), _hash(stored_hash))
        self._compare()

    def head(self, head: Head) -> None:
        """A head that stands at this place; the last one is the one that counts."""
        if not head.is_genuine():
            self.found.add(f"the head over entry {head.number} is not what was signed")
        elif head.end != self.found.end:
            self.found.add(f"the head over entry {head.number} was signed over another entry than stands there")
        self.found.signed_by = head

    def finish(self) -> Findings:
        """What was found, once everything has been seen."""
        found, last = self.found, self.found.signed_by
        known = max(self._known, default=0)
        if known > found.end.number:
            found.add(f"the log ends at entry {found.end.number}; the known head was signed over entry {known}")
        if last is not None and self._trust.kids is not None:
            if last.kid in self._trust.kids:
                found.confirmed = max(found.confirmed or 0, last.number)
            else:
                found.add(f"the newest head was signed by the key {last.kid}, which is none of the known ones")
        return found

    def _compare(self) -> None:
        end = self.found.end
        for head in self._known.get(end.number, ()):
            if head.end != end:
                self.found.add(f"entry {head.number} is not the one over which the known head was signed")
            else:
                self.found.confirmed = end.number


def one_picture(session: Session) -> None:
    """Lets all that this transaction reads be of one moment; must come before anything else in it."""
    if session.get_bind().dialect.name == "postgresql":
        session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def verify_database(session: Session, trust: Trust, progress: Progress) -> Findings:
    """Follows the whole chain; `progress` is told how many entries were seen. Others may seal meanwhile: the session
    must show `one_picture`."""
    last = newest(session)
    walk, end = _begin(session, last, trust)
    heads = _heads(session)
    head = next(heads, None)
    entries = _entries(session)
    entry: dict[str, Value] | None = {}
    while entry is not None:
        while head is not None and head.number <= walk.found.end.number:
            walk.head(head)
            head = next(heads, None)
        entry = next(entries, None)
        if entry is not None:
            walk.entry({name: value for name, value in entry.items() if name != "hash"}, entry["hash"])
            progress(1)
    if head is not None:
        walk.found.add(f"the log ends at entry {walk.found.end.number}; a head was signed over entry {head.number}")
    if last is None and walk.found.entries and trust.kids is not None:
        walk.found.add(
            "no head is over any of the entries: they are signed when the first are sealed, so it was removed"
        )
    if end is not None and walk.found.end != end:
        walk.found.add(f"the log ends at entry {walk.found.end.number}; entry {end.number} was the last to be sealed")
    walk.found.unsealed = session.scalar(select(func.count()).where(AuditEntry.number.is_(None))) or 0
    return walk.finish()


def _begin(session: Session, last: Head | None, trust: Trust) -> tuple[Walk, Link | None]:
    """Where the log begins, and where it is said to end."""
    # Where the log begins, a signature says: a row of the database could be moved to hide what was taken away.
    signed = last.before if last is not None and last.is_genuine() else None
    try:
        before, end = ends(session)
    except LogChanged as error:
        walk = Walk(signed or BEGINNING, trust)
        walk.found.add(str(error))
        return walk, None
    walk = Walk(signed or Link(before.number, _hash(before.hash)), trust)
    if last is None and before != BEGINNING:
        walk.found.add("the log does not begin at its first entry, and no head says that this is right")
    if signed is not None and signed != before:
        walk.found.add(f"the log is said to begin after entry {before.number}, the newest head says {signed.number}")
    return walk, end


def _entries(session: Session) -> Iterator[dict[str, Value]]:
    after = -(2**62)
    while True:
        page = (
            session.execute(
                select(*COLUMNS, AuditEntry.hash)
                .where(AuditEntry.number > after)
                .order_by(AuditEntry.number)
                .limit(PAGE_ROWS)
            )
            .mappings()
            .all()
        )
        yield from (dict(row) for row in page)
        if len(page) < PAGE_ROWS:
            return
        after = page[-1]["number"]


def _heads(session: Session) -> Iterator[Head]:
    after = -(2**62)
    while True:
        wanted = select(AuditHead).where(AuditHead.number > after).order_by(AuditHead.number).limit(PAGE_ROWS)
        page = session.scalars(wanted).all()
        yield from map(of_row, page)
        if len(page) < PAGE_ROWS:
            return
        after = page[-1].number


def _number(value: Value, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _hash(value: Value) -> str:
    # A hash that is none is a fault already; what follows is told from it all the same.
    text = str(value)
    return text if HASH.fullmatch(text) else NOTHING
