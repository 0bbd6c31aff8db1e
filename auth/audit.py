"""The audit log's entries: who did what to which, and how it ended.

An act's entry is written in the transaction of the act, so that neither is there without the other. Entries hold no
secret and no tensor, and callers' texts only cut to length and escaped.
"""

from __future__ import annotations

import getpass
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import cast

from sqlalchemy import BigInteger, Table, bindparam, insert
from sqlalchemy.orm import Session

from auth.audit_tables import AuditEntry
from model_store.database import now_ms
from monitoring.logs import masked
from monitoring.metrics import AUDIT_ENTRIES

ACT = re.compile(r"[a-z][a-z0-9_]{0,63}")
LOCAL = "local"
DETAIL_CHARACTERS = 256
MOST_DETAILS = 16
MOST_VERSION = 2**31 - 1

# The table, not the class: the mapper would take twice as long for many rows, and nobody asks for their numbers.
_ENTRIES = cast(Table, AuditEntry.__table__)

Values = dict[str, str | int | None]


class Outcome(StrEnum):
    """How an act ended."""

    DONE = "done"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Entry:
    """One act. `act` is of a closed list: the name of a route's function, of a command, or of a thread's work.

    `identity` is proven (`cli_…`, `usr_…`, `local`) or empty; `count` says how many equal acts this one stands for.
    """

    act: str
    identity: str = ""
    name: str = ""
    model: str | None = None
    version: int | None = None
    digest: str | None = None
    outcome: Outcome = Outcome.DONE
    reason: str | None = None
    request_id: str = ""
    address: str = ""
    count: int = 1
    detail: Mapping[str, object] = field(default_factory=dict)


def by_operator(act: str, detail: Mapping[str, object]) -> Entry:
    """The entry of a command that somebody runs on the machine that has the database."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        # A container's user often has no name: KeyError up to Python 3.12, OSError from 3.13 on.
        name = ""
    return Entry(act, identity=LOCAL, name=name, detail=detail)


def record(session: Session, entry: Entry) -> None:
    """Writes an entry with the transaction; its time is the database's. ValueError for an act that is no code."""
    session.execute(insert(_ENTRIES).values(**_values(entry)))
    _count([entry])


def record_past(session: Session, entries: Sequence[tuple[int, Entry]]) -> None:
    """Writes entries of acts that happened so many milliseconds ago, by the database's clock."""
    rows = [_values(entry) | {"age": age} for age, entry in entries]
    if rows:
        at = now_ms() - bindparam("age", type_=BigInteger())
        session.execute(insert(_ENTRIES).values(at=at), rows)
        _count([entry for _, entry in entries])


def escaped(text: str, characters: int) -> str:
    """The text in printable ASCII and cut to length: no NUL for PostgreSQL, nothing that moves a terminal's cursor."""
    if text.isascii() and text.isprintable() and "\\" not in text:
        shown = text
    else:
        shown = json.dumps(text[:characters], ensure_ascii=True)[1:-1].replace('\\"', '"').replace("\x7f", "\\u007f")
    return shown if len(shown) <= characters else shown[: characters - 3] + "..."


def _values(entry: Entry) -> Values:
    if not ACT.fullmatch(entry.act):
        raise ValueError("an act is of lower-case letters, digits and underscores")
    known_version = entry.version is not None and 0 <= entry.version <= MOST_VERSION
    return {
        "identity": escaped(entry.identity, 64),
        "name": escaped(entry.name, 128),
        "act": entry.act,
        "model": None if entry.model is None else escaped(entry.model, 128),
        "version": entry.version if known_version else None,
        "digest": None if entry.digest is None else escaped(entry.digest, 64),
        "outcome": entry.outcome.value,
        "reason": None if entry.reason is None else escaped(entry.reason, 64),
        "request_id": escaped(entry.request_id, 64),
        "address": escaped(entry.address, 64),
        "count": entry.count,
        "detail": _detail(entry.detail),
    }


def _detail(detail: Mapping[str, object]) -> str:
    kept = list(detail.items())[:MOST_DETAILS]
    texts = {escaped(str(name), 64): _shown(value) for name, value in kept if value is not None}
    return json.dumps(texts, sort_keys=True, separators=(",", ":"))


def _shown(value: object) -> str:
    # A path may carry whatever a caller put there, a token by mistake as well.
    return escaped(masked(str(value)[: 4 * DETAIL_CHARACTERS]), DETAIL_CHARACTERS)


def _count(entries: Sequence[Entry]) -> None:
    for entry in entries:
        AUDIT_ENTRIES.labels(entry.act, entry.outcome.value).inc(entry.count)
