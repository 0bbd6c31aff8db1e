"""What becomes an entry a moment later, outside of any transaction: refusals, token issues, predictions.

Bounded in memory and on disk: a full buffer counts what it loses, and a flood of equal refusals is two entries a
minute.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from auth.audit import Entry, Outcome
from monitoring.metrics import AUDIT_DROPPED

CAPACITY = 20_000
JOIN_SECONDS = 60.0
# Refusals of different kinds that are told apart within a minute. Those beyond are joined by act and reason alone: two
# entries a minute each, so that a flood from many addresses writes at most some 300 MB a day.
MOST_KINDS = 300
DROPPED_ACT = "drop_audit_entries"

Stamped = tuple[float, Entry]
Aged = tuple[int, Entry]
_Kind = tuple[str, str, str, str | None, str | None, object]


@dataclass(slots=True)
class _Joined:
    """A refusal whose first case is written already, and how often it has come again."""

    entry: Entry
    until: float
    last_at: float
    again: int = 0


class AuditBuffer:
    """Takes entries from any thread at once; `take` hands them out, each with the moment at which it came."""

    def __init__(self, capacity: int = CAPACITY, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = capacity
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: list[Stamped] = []
        self._joined: dict[_Kind, _Joined] = {}
        self._dropped = 0

    def add(self, entry: Entry) -> None:
        """One more entry; a refusal is joined with its equals of the last minute."""
        now = self._clock()
        with self._lock:
            if entry.outcome is Outcome.DONE or self._is_first(entry, now):
                self._append(now, entry)

    def take(self, *, all_of_it: bool = False) -> list[Stamped]:
        """What waits, and counts of joined refusals whose minute is over, or all of them.

        Whoever takes must write it, or `put_back`.
        """
        now = self._clock()
        with self._lock:
            waiting, self._waiting = self._waiting, []
            for kind, joined in list(self._joined.items()):
                if all_of_it or joined.until <= now:
                    del self._joined[kind]
                    if joined.again:
                        waiting.append((joined.last_at, dataclasses.replace(joined.entry, count=joined.again)))
            if self._dropped:
                waiting.append((now, Entry(DROPPED_ACT, reason="buffer_full", count=self._dropped)))
                self._dropped = 0
        return waiting

    def aged(self, taken: list[Stamped]) -> list[Aged]:
        """The same with ages in milliseconds: times are the database's, only how long ago is told by this process."""
        now = self._clock()
        return [(int((now - at) * 1000), entry) for at, entry in taken]

    def put_back(self, taken: list[Stamped]) -> None:
        """What could not be written comes first again; of what there is no room for, the newest is lost."""
        with self._lock:
            newer, self._waiting = self._waiting, taken[: self._capacity]
            self._lose(sum(entry.count for _, entry in taken[self._capacity :]))
            for at, entry in newer:
                self._append(at, entry)

    def _is_first(self, entry: Entry, now: float) -> bool:
        attempted = entry.detail.get("attempted")
        kind: _Kind = (entry.identity, entry.address, entry.act, entry.model, entry.reason, attempted)
        if kind not in self._joined and len(self._joined) >= MOST_KINDS:
            entry = Entry(entry.act, outcome=entry.outcome, reason=entry.reason, detail={"of": "several callers"})
            kind = ("", "", entry.act, None, entry.reason, None)
        known = self._joined.get(kind)
        if known is None:
            self._joined[kind] = _Joined(entry, now + JOIN_SECONDS, now)
            return True
        known.again, known.last_at = known.again + 1, now
        return False

    def _append(self, at: float, entry: Entry) -> None:
        if len(self._waiting) < self._capacity:
            self._waiting.append((at, entry))
        else:
            self._lose(entry.count)

    def _lose(self, count: int) -> None:
        if count:
            self._dropped += count
            AUDIT_DROPPED.inc(count)
