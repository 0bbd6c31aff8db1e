"""The audit log's chain: every entry's hash covers the entry and, through the hash before it, all earlier ones.

hash = SHA-256(hash of the entry before, as 32 bytes, followed by the entry as canonical JSON); 64 zeros stand before
the first. Canonical: the fields below, sorted by name, without spaces, everything outside ASCII escaped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from sqlalchemy import Table, bindparam, select, update
from sqlalchemy.orm import Session

from auth.audit_tables import AuditChain, AuditEntry

Value = str | int | None
Fields = Mapping[str, Value]

ROW = 1
NOTHING = "0" * 64
PAGE_ROWS = 1000
FIELDS = (
    "id", "number", "at", "identity", "name", "act", "model", "version", "digest", "outcome", "reason", "request_id",
    "address", "count", "detail",
)  # fmt: skip
COLUMNS = tuple(getattr(AuditEntry, name) for name in FIELDS)


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the chain: an entry's number and hash; number 0 is before the first."""

    number: int
    hash: str


class LogChanged(Exception):
    """The log is not what was sealed or signed; the text says what was found."""


BEGINNING = Link(0, NOTHING)


def canonical(fields: Fields) -> str:
    """The one way in which these fields are written."""
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def hash_after(previous: str, fields: Fields) -> str:
    """The hash of an entry, in hexadecimal, by the hash of the one before it; ValueError where that is none.

    Empty, and so no entry's hash, for fields of kinds that no entry has, such as bytes in SQLite's column of text.
    """
    if any(not isinstance(value, str | int | None) for value in fields.values()):
        return ""
    return hashlib.sha256(bytes.fromhex(previous) + canonical(fields).encode()).hexdigest()


def locked_chain(session: Session) -> AuditChain | None:
    """The row of the chain, for this transaction alone until it ends; None where another one has it."""
    wanted = select(AuditChain).where(AuditChain.id == ROW)
    return session.scalars(wanted.with_for_update(skip_locked=True)).one_or_none()


def seal(session: Session, limit: int = PAGE_ROWS) -> int:
    """Gives entries that have none their place in the chain, in the order in which they were written; says how many.

    What was committed late comes after what is sealed already: no entry is passed over. Of several processes one at a
    time gets here (on SQLite each transaction that writes is alone); the others find nothing to do.
    """
    chain = locked_chain(session)
    if chain is None:
        return 0
    waiting = select(*COLUMNS).where(AuditEntry.number.is_(None)).order_by(AuditEntry.id).limit(limit)
    rows: list[dict[str, int | str]] = []
    number, previous = chain.number, chain.hash
    for entry in session.execute(waiting).mappings():
        number += 1
        previous = hash_after(previous, {**entry, "number": number})
        rows.append({"entry": entry["id"], "place": number, "digest_of_it": previous})
    if rows:
        table = cast(Table, AuditEntry.__table__)
        session.execute(
            update(table)
            .where(table.c.id == bindparam("entry"))
            .values(number=bindparam("place"), hash=bindparam("digest_of_it")),
            rows,
        )
        chain.number, chain.hash = number, previous
        session.flush()
    return len(rows)


def ends(session: Session) -> tuple[Link, Link]:
    """Where the chain begins (the last place that retention took away) and where it ends; raises LogChanged where the
    database does not say."""
    values = (AuditChain.before_number, AuditChain.before_hash, AuditChain.number, AuditChain.hash)
    found = session.execute(select(*values).where(AuditChain.id == ROW)).one_or_none()
    if found is None:
        raise LogChanged("the row of audit_chain that says where the log ends is missing")
    if tuple(map(type, found)) != (int, str, int, str):
        raise LogChanged("the row of audit_chain that says where the log ends holds what is no place in a log")
    return Link(found[0], found[1]), Link(found[2], found[3])
