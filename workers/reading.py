"""Reading the streams of a slot: its bell and its hot lanes, in one command."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import redis

from auth.grants import LEAST_WEIGHT, MOST_WEIGHT
from workers.entries import Entry, parse_entry, settle
from workers.hot_lanes import HotLane, HotLanes
from workers.lanes import GROUP, LANE_MILLISECONDS, RING_FIELD, WEIGHT_FIELD
from workers.redis_link import Wire, bulk, pack

Rings = list[tuple[bytes, str, float | None]]
"""Id of the ring, name of the lane, and the weight that the lane has from now on; None says nothing about it."""
Found = list[tuple[HotLane, list[Entry]]]
Stream = tuple[bytes, Sequence[tuple[bytes, Sequence[bytes] | None]]]
"""A part of XREADGROUP's answer: the key, and entries by their id; a deleted one has no fields."""

PENDING_RINGS = 1000
RINGS_A_READ = 128
NEW = bulk(b">")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to read: lanes in turn, as many entries as a turn takes, and one entry of each of the idle ones beside them.

    A read of `block_ms` waits for whatever comes first, for so many milliseconds at most; None does not wait.
    """

    lanes: Sequence[HotLane]
    idle: Sequence[HotLane] = ()
    block_ms: int | None = None


class Reading:
    """Reads as one consumer."""

    def __init__(self, wire: Wire, bell: bytes, consumer: str) -> None:
        self._wire = wire
        self._bell = bell
        self._consumer = consumer.encode()
        self._bell_word = bulk(bell)
        self._group_words = bulk(b"XREADGROUP") + bulk(b"GROUP") + bulk(GROUP) + bulk(self._consumer) + bulk(b"COUNT")
        self._rest_of_bell = self._command((), RINGS_A_READ, None)

    def read(self, lanes: HotLanes, wanted: Wanted, first: Sequence[bytes] = ()) -> tuple[Rings, Found]:
        """What is new in the bell and in the wanted lanes.

        The packed commands `first` go ahead in the same round trip. Rings whose lanes were read for the first time are
        acknowledged in it, too.
        """
        count = lanes.count_for(wanted.lanes)
        every = [*wanted.lanes, *wanted.idle]
        rung = [hot for hot in every if hot.rings]
        heard = [ring_id for hot in rung for ring_id in hot.rings]
        # COUNT holds for each stream of a read: with a hundred lanes, one ring a turn would be heard while more come.
        rest = [self._rest_of_bell] if count < RINGS_A_READ else []
        beside = [self._command(wanted.idle, 1, None)] if wanted.idle else []
        commands = [*first, self._command(wanted.lanes, count, wanted.block_ms), *rest, *beside]
        if heard:
            commands += (pack("XACK", self._bell, GROUP, *heard), pack("XDEL", self._bell, *heard))
        replies = self._wire.execute(commands)[len(first) :]
        read = replies[: 1 + len(rest) + len(beside)]
        failures = [str(reply) for reply in read if isinstance(reply, redis.ResponseError)]
        rings, found = self._sorted(lanes, [reply for reply in read if isinstance(reply, list)])
        if not failures:
            for hot in rung:
                hot.rings.clear()
            brought = {hot.key for hot, _ in found}
            lanes.empty([hot for hot in every if hot.key not in brought])
        elif any("NOGROUP" in text or "UNBLOCKED" in text for text in failures):
            # One lane without its group fails the whole read; a wiped Redis has lost all of them.
            self.create_groups(lanes)
        else:
            raise redis.ResponseError(failures[0])
        return rings, found

    def create_groups(self, lanes: HotLanes) -> None:
        """Create the bell, the hot lanes and their groups where they are missing, in one pipeline."""
        commands: list[bytes] = []
        for key in [self._bell, *(hot.key for hot in lanes)]:
            commands += (
                pack("XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM"),
                pack("PEXPIRE", key, LANE_MILLISECONDS),
            )
        self._wire.execute(commands)

    def pending_rings(self) -> Rings:
        """Rings that this slot read before but never acknowledged."""
        command = ("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", PENDING_RINGS, "STREAMS", self._bell, "0")
        reply = self._wire.execute([pack(*command)])[0]
        if isinstance(reply, redis.ResponseError) or not reply:
            return []
        return _rings(reply[0][1])

    def anything(self, key: bytes) -> bool:
        """Whether anything lies in a lane or bell that nobody has read yet."""
        groups = self._wire.execute([pack("XINFO", "GROUPS", key)])[0]
        if isinstance(groups, redis.ResponseError):
            return False  # no such key
        told = dict(zip(groups[0][::2], groups[0][1::2], strict=False)) if groups else {}
        last: bytes = told.get(b"last-delivered-id", b"0-0")
        newer = self._wire.execute([pack("XRANGE", key, b"(" + last, "+", "COUNT", 1)])[0]
        return bool(newer) and not isinstance(newer, redis.ResponseError)

    def _command(self, chosen: Sequence[HotLane], count: int, block_ms: int | None) -> bytes:
        # Put together from words that each lane keeps: packing a long command anew costs more than running it.
        streams = len(chosen) + 1
        number = bulk(b"%d" % count)
        words = 7 + 2 * streams
        if block_ms is not None:
            number += bulk(b"BLOCK") + bulk(b"%d" % block_ms)
            words += 2
        head = b"*%d\r\n%b%b%b%b" % (words, self._group_words, number, bulk(b"STREAMS"), self._bell_word)
        return b"".join([head, *[hot.word for hot in chosen], NEW * streams])

    def _sorted(self, lanes: HotLanes, replies: Sequence[Sequence[Stream]]) -> tuple[Rings, Found]:
        rings: Rings = []
        found: Found = []
        for key, raw in itertools.chain.from_iterable(replies):
            if key == self._bell:
                rings += _rings(raw)
                continue
            hot = lanes.get(key)
            if hot is None:
                continue
            entries = [entry for entry_id, fields in raw if (entry := parse_entry(hot.key, entry_id, fields))]
            if len(entries) < len(raw):
                self._drop_foreign(hot, entries, raw)
            if entries:
                lanes.paid(hot, len(entries), sum(entry.predictions for entry in entries))
                found.append((hot, entries))
        return rings, found

    def _drop_foreign(self, hot: HotLane, ours: Sequence[Entry], raw: Sequence[tuple[bytes, object]]) -> None:
        # Left pending, it would stand for ever at the head of its lane.
        known = {entry.id for entry in ours}
        self._wire.execute(
            settle([Entry(hot.key, entry_id, None, None) for entry_id, _ in raw if entry_id not in known])
        )


def _rings(raw: Sequence[tuple[bytes, Sequence[bytes] | None]]) -> Rings:
    return [
        # What is no ring names no lane.
        (ring_id, fields[1].decode(errors="replace") if fields[0] == RING_FIELD else "", _weight(fields))
        for ring_id, fields in raw
        if fields
    ]


def _weight(fields: Sequence[bytes]) -> float | None:
    """Never one that no grant can have."""
    if len(fields) < 4 or fields[2] != WEIGHT_FIELD:
        return None
    try:
        weight = float(fields[3])
    except ValueError:
        return None
    return min(max(weight, LEAST_WEIGHT), MOST_WEIGHT) if math.isfinite(weight) else None
