"""What dead sessions left behind in a lane: entries that were read but never answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import redis

from workers.bells import DRAIN_MILLISECONDS
from workers.entries import Entry, parse_entry
from workers.hot_lanes import HotLane
from workers.lanes import GROUP, Keys
from workers.redis_link import Wire, pack

DELIVERIES = 2
ENTRIES_A_TIME = 100


@dataclass(slots=True)
class LeftBehind:
    """Entries to run again, ones that were delivered twice already, and ones that no longer exist."""

    entries: list[tuple[HotLane, list[Entry]]] = field(default_factory=list)
    hopeless: list[Entry] = field(default_factory=list)
    gone: list[Entry] = field(default_factory=list)


class Recovery:
    """Claims entries of consumers whose heart stopped, its own predecessor's among them.

    XAUTOCLAIM would not do: it cannot name a consumer, and would take the entries of a session that is alive and busy.
    """

    def __init__(self, wire: Wire, keys: Keys, consumer: str) -> None:
        self._wire = wire
        self._keys = keys
        self._consumer = consumer

    def left_behind(self, woken: Sequence[tuple[HotLane, bool]], in_hand: set[tuple[bytes, bytes]]) -> LeftBehind:
        """Look at lanes that were rung; for those that were cold the own pending entries are looked at too.

        `in_hand` are entries (lane's key, id) that this session is running right now. Also notes quarantines.
        """
        left = LeftBehind()
        commands: list[bytes] = []
        for hot, _ in woken:
            commands += (pack("XPENDING", hot.key, GROUP), pack("EXISTS", self._keys.quarantine(*hot.version)))
        replies = self._wire.execute(commands)
        for (hot, cold), summary, quarantined in zip(woken, replies[::2], replies[1::2], strict=True):
            hot.quarantined = quarantined == 1
            if isinstance(summary, redis.ResponseError) or not summary or not summary[0]:
                continue
            for consumer, _ in summary[3]:
                name = consumer.decode()
                if name == self._consumer and cold:
                    self._claim(hot, name, 0, in_hand, left)
                elif name != self._consumer and not self._beats(name):
                    # Of two claimers one wins: a claimed entry's idle time starts again at zero.
                    self._claim(hot, name, DRAIN_MILLISECONDS, in_hand, left)
        return left

    def _beats(self, consumer: str) -> bool:
        return bool(self._wire.execute([pack("EXISTS", self._keys.beat(consumer))])[0])

    def _claim(
        self, hot: HotLane, consumer: str, min_idle_ms: int, in_hand: set[tuple[bytes, bytes]], left: LeftBehind
    ) -> None:
        # To the last page: of a lane that stays busy, its own pending entries are looked at only once.
        start = b"-"
        while start:
            pending = self._wire.execute([pack("XPENDING", hot.key, GROUP, start, "+", ENTRIES_A_TIME, consumer)])[0]
            if isinstance(pending, redis.ResponseError):
                return
            self._claim_page(hot, pending, min_idle_ms, in_hand, left)
            start = b"(" + pending[-1][0] if len(pending) == ENTRIES_A_TIME else b""

    def _claim_page(
        self,
        hot: HotLane,
        pending: Sequence[tuple[bytes, bytes, int, int]],
        min_idle_ms: int,
        in_hand: set[tuple[bytes, bytes]],
        left: LeftBehind,
    ) -> None:
        deliveries = {
            entry_id: count
            for entry_id, _, idle, count in pending
            if idle >= min_idle_ms and (hot.key, entry_id) not in in_hand
        }
        if not deliveries:
            return
        command = pack("XCLAIM", hot.key, GROUP, self._consumer, min_idle_ms, *deliveries)
        claimed = self._wire.execute([command])[0]
        if isinstance(claimed, redis.ResponseError):
            return
        found = {item[0]: item[1] for item in claimed if item}
        left.gone += self._deleted(hot, [entry_id for entry_id in deliveries if entry_id not in found])
        mine = []
        for entry_id, fields in found.items():
            entry = parse_entry(hot.key, entry_id, fields)
            if entry is None:
                left.gone.append(Entry(hot.key, entry_id, None, None))
            elif deliveries[entry_id] >= DELIVERIES and entry.bundle is not None:
                left.hopeless.append(entry)
            else:
                mine.append(entry)
        if mine:
            left.entries.append((hot, mine))

    def _deleted(self, hot: HotLane, ids: Sequence[bytes]) -> list[Entry]:
        """Entries canceled after they were read: Redis 6.2 has them pending for ever, and claims nothing for them."""
        if not ids:
            return []
        replies = self._wire.execute([pack("XRANGE", hot.key, entry_id, entry_id) for entry_id in ids])
        return [
            Entry(hot.key, entry_id, None, None)
            for entry_id, reply in zip(ids, replies, strict=True)
            if isinstance(reply, list) and not reply
        ]
