"""Departures: predictions whose caller left, and canceled jobs, are taken out of their lane where no worker has them.

An entry that others share is written anew without those that left. All of it happens a few times a second, and for
those alone that left: a prediction that is answered costs nothing here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.turns import LaidOut, Turn
from gateway.wire import Command, Wire
from workers.lanes import (
    BUNDLE_FIELD,
    GROUP,
    JOB_FIELD,
    Bundle,
    Keys,
    Lane,
    Prediction,
    entry_ms,
    pack_bundle,
    unpack_bundle,
)
from workers.redis_link import Reply, pack, pack_pieces

# Beyond these a prediction that nobody waits for is run all the same.
MOST_LEFT = 10_000
# Entries that are read back at a time: each may hold a megabyte.
ENTRIES_A_TIME = 16
# How far a job's entry is looked for. A lane of jobs holds less; one that synchronous predictions share may hold
# megabytes in front of it.
LOOKED_AT_PAGES = 16
LOOKED_AT_ENTRIES = 64
LOOKED_AT_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Left:
    """An entry that somebody left."""

    lane: Lane
    entry: LaidOut


class Departures:
    """Remembers who left, and takes them out."""

    def __init__(self, wire: Wire, keys: Keys, is_waiting: Callable[[int], bool]) -> None:
        self._wire = wire
        self._keys = keys
        self._is_waiting = is_waiting
        # By the entry's identity: many may leave the same.
        self._left: dict[int, Left] = {}

    def note(self, turn: Turn, number: int) -> None:
        """Somebody left whose prediction came in this turn."""
        entry = turn.entry_of(number)
        if entry is not None and len(self._left) < MOST_LEFT:
            self._left[id(entry)] = Left(turn.lane, entry)

    async def take_out(self) -> None:
        """Take a few of those that left out of their entries; raises QueueUnavailable."""
        page = list(self._left)[:ENTRIES_A_TIME]
        if not page:
            return
        left = [self._left.pop(name) for name in page]
        questions = [pack("XPENDING", self._keys.lane(one.lane), GROUP, one.entry.id, one.entry.id, 1) for one in left]
        # Nobody has read an entry whose lane has no group yet.
        unread = [
            one
            for one, pending in zip(left, await self._wire.execute(questions), strict=True)
            if not isinstance(pending, list) or not pending
        ]
        ranges = [pack("XRANGE", self._keys.lane(one.lane), one.entry.id, one.entry.id) for one in unread]
        if ranges:
            clock, *found = await self._wire.execute([pack("TIME"), *ranges])
            await self._write_anew(unread, found, _milliseconds(clock))

    async def remove_job(self, lane: str, number: int) -> None:
        """Delete a job's entry, if it lies near enough to the lane's head; raises QueueUnavailable."""
        key, after, seen = self._keys.lane(lane), b"-", 0
        for _ in range(LOOKED_AT_PAGES):
            [entries] = await self._wire.execute([pack("XRANGE", key, after, "+", "COUNT", LOOKED_AT_ENTRIES)])
            if not isinstance(entries, list):
                return
            for entry_id, fields in entries:
                if fields == [JOB_FIELD, b"%d" % number]:
                    await self._wire.execute([pack("XDEL", key, entry_id)])
                    return
                seen += len(fields[-1])
            if len(entries) < LOOKED_AT_ENTRIES or seen > LOOKED_AT_BYTES:
                return
            after = b"(" + entries[-1][0]

    async def _write_anew(self, unread: Sequence[Left], found: Sequence[Reply], now_ms: int) -> None:
        commands: list[Command] = []
        moved: list[tuple[Left, int]] = []
        for one, reply in zip(unread, found, strict=True):
            bundle = _bundle(reply)
            if bundle is None:
                continue
            key = self._keys.lane(one.lane)
            others = [prediction for prediction in bundle.predictions if self._is_waiting(prediction[0])]
            if others:
                # First, so that a connection that breaks in between loses nobody's prediction. A worker that reads the
                # old entry just now answers the others twice, and the second answer finds nobody.
                moved.append((one, len(commands)))
                commands.append(_anew(key, bundle, others, now_ms - entry_ms(one.entry.id)))
            commands.append(pack("XDEL", key, one.entry.id))
        replies = await self._wire.execute(commands) if commands else []
        for one, place in moved:
            if isinstance(replies[place], bytes):
                one.entry.id = replies[place]


def _anew(key: bytes, bundle: Bundle, others: Sequence[Prediction], waited_ms: int) -> Command:
    # An entry's age is told by its id: the new one's limit is what was left of the old one's.
    packed = pack_bundle(bundle.reply_to, max(1, bundle.limit_ms - waited_ms), others)
    return pack_pieces(b"XADD", key, b"*", BUNDLE_FIELD, last=packed)


def _bundle(reply: Reply) -> Bundle | None:
    """The bundle of a range's only entry; None where it is gone."""
    if not isinstance(reply, list) or not reply:
        return None
    _, fields = reply[0]
    return unpack_bundle(fields[1]) if fields and fields[0] == BUNDLE_FIELD else None


def _milliseconds(clock: Reply) -> int:
    return int(clock[0]) * 1000 + int(clock[1]) // 1000
