"""The audit log as a file of JSON lines that verifies by itself: a start, the entries with their hashes, a signed head.

Each line is canonical JSON (auth/audit_chain.py), so that a changed line is found even where it would read the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from auth.audit_chain import BEGINNING, COLUMNS, FIELDS, Link, Value, canonical, ends
from auth.audit_heads import head_of, sign
from auth.audit_tables import AuditEntry
from auth.audit_verification import HASH, PAGE_ROWS, Findings, Progress, Trust, Walk
from auth.keys import SigningKey
from model_store.database import clock_ms

START, ENTRY, HEAD = "start", "entry", "head"
Line = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Part:
    """The entries after `before`, up to and with `end`."""

    before: Link
    end: Link

    @property
    def entries(self) -> int:
        return self.end.number - self.before.number


def part_of(session: Session, since: int | None, until: int | None) -> Part:
    """What lies between two moments (milliseconds since 1970, None: no bound), as one piece of the chain.

    It begins with the first entry that is not older and ends with the last that is not younger; an entry that was
    committed late may stand between others though its own time is outside.
    """
    begin, end = ends(session)
    if since is not None:
        first = session.scalar(select(func.min(AuditEntry.number)).where(AuditEntry.at >= since))
        begin = end if first is None else _link(session, first - 1, begin)
    if until is not None:
        last = session.scalar(select(func.max(AuditEntry.number)).where(AuditEntry.at <= until))
        end = begin if last is None or last < begin.number else _link(session, last, begin)
    return Part(begin, end)


def lines(session: Session, part: Part, signing: SigningKey) -> Iterator[str]:
    """The part as lines, without their line breaks."""
    yield canonical({"kind": START, **asdict(part.before)})
    after = part.before.number
    while after < part.end.number:
        wanted = select(*COLUMNS, AuditEntry.hash).where(AuditEntry.number > after).order_by(AuditEntry.number)
        page = session.execute(wanted.limit(min(PAGE_ROWS, part.end.number - after))).mappings().all()
        if not page:
            break
        for row in page:
            yield canonical({"kind": ENTRY, **row})
        after = page[-1]["number"]
    yield canonical({"kind": HEAD, **asdict(sign(part.end, part.before, clock_ms(session), signing))})


def verify_file(found_lines: Iterable[str], trust: Trust, progress: Progress) -> Findings:
    """Follows an exported file's lines (with or without line breaks); `progress` is told how many were seen."""
    walk: Walk | None = None
    ended = False
    for place, text in enumerate(found_lines, 1):
        progress(1)
        line = _parsed(text)
        if place == 1:
            walk = _begin(line, trust)
            continue
        assert walk is not None  # noqa: S101 - made from the first line
        if ended:
            walk.found.add(f"line {place}: there is something after the signed head")
        elif line is None:
            walk.found.add(f"line {place} is not as it was written")
        elif line["kind"] == HEAD:
            ended = True
            _end(line, walk, place)
        else:
            _follow(line, walk, place)
    if walk is None:
        walk = Walk(BEGINNING, trust)
        walk.found.add("the file is empty")
    if not ended:
        walk.found.add("the file does not end with a signed head: its last lines are missing")
    return walk.finish()


def _begin(line: Line | None, trust: Trust) -> Walk:
    if line is not None and line.get("kind") == START:
        number, value = line.get("number"), line.get("hash")
        if type(number) is int and isinstance(value, str) and HASH.fullmatch(value):
            return Walk(Link(number, value), trust)
    walk = Walk(BEGINNING, Trust(trust.kids))
    walk.found.add("line 1 is not the start of an exported audit log")
    return walk


def _follow(line: Line, walk: Walk, place: int) -> None:
    if line["kind"] != ENTRY or line.keys() != {"kind", "hash", *FIELDS}:
        walk.found.add(f"line {place} is no entry")
        return
    walk.entry({name: line[name] for name in FIELDS}, line["hash"])


def _end(line: Line, walk: Walk, place: int) -> None:
    head = head_of({name: value for name, value in line.items() if name != "kind"})
    if head is None:
        walk.found.add(f"line {place} is no head")
        return
    walk.head(head)
    if head.before != walk.found.before:
        walk.found.add(f"line 1 does not begin where the signed head says, after entry {head.before_number}")


def _parsed(text: str) -> Line | None:
    text = text.removesuffix("\n")
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(line, dict) or not isinstance(line.get("kind"), str):
        return None
    if any(not isinstance(value, str | int | None) or isinstance(value, bool) for value in line.values()):
        return None
    return line if canonical(line) == text else None


def _link(session: Session, number: int, begin: Link) -> Link:
    """The place of an entry, or the beginning."""
    value = session.scalar(select(AuditEntry.hash).where(AuditEntry.number == number))
    return begin if value is None else Link(number, value)
