"""Reading the streams of a slot: its bell and its hot lanes, in one command."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from workers.entries import Entry, parse_entry, settle
from workers.hot_lanes import HotLane, HotLanes
from workers.lanes import GROUP, LANE_MILLISECONDS, RING_FIELD
from workers.redis_link import Wire, pack

Rings = list[tuple[bytes, str]]
Found = list[tuple[HotLane, list[Entry]]]

PACKED_READS = 256
PENDING_RINGS = 1000


class Reading:
    """Reads as one consumer; commands are packed once and kept, since packing a long one costs more than sending it."""

    def __init__(self, wire: Wire, bell: bytes, consumer: str) -> None:
        self._wire = wire
        self._bell = bell
        self._consumer = consumer.encode()
        self._packed: dict[tuple[object, ...], bytes] = {}

    def read(self, lanes: HotLanes, chosen: Sequence[HotLane], block_ms: int | None) -> tuple[Rings, Found]:
        """What is new in the bell and in the chosen lanes; waits up to `block_ms` (None: not at all) for any of it.

        Rings whose lanes were read for the first time are acknowledged in the same round trip.
        """
        count = lanes.count_for(list(chosen))
        heard = [ring_id for hot in chosen for ring_id in hot.rings]
        commands = [self._command(chosen, count, block_ms)]
        if heard:
            commands += (pack("XACK", self._bell, GROUP, *heard), pack("XDEL", self._bell, *heard))
        reply = self._wire.execute(commands)[0]
        if isinstance(reply, redis.ResponseError):
            if "NOGROUP" in str(reply) or "UNBLOCKED" in str(reply):
                # One lane without its group fails the whole read; a wiped Redis has lost all of them.
                self.create_groups(lanes)
                return [], []
            raise reply
        for hot in chosen:
            hot.rings.clear()
        return self._sorted(lanes, chosen, reply or [])

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

    def anything(self) -> bool:
        """Whether something came in after the session gave its key away."""
        reply = self._wire.execute([pack("XINFO", "GROUPS", self._bell)])[0]
        if isinstance(reply, redis.ResponseError) or not reply:
            return False
        last: bytes = dict(zip(reply[0][::2], reply[0][1::2], strict=False)).get(b"last-delivered-id", b"0-0")
        newer = self._wire.execute([pack("XRANGE", self._bell, b"(" + last, "+", "COUNT", 1)])[0]
        return bool(newer) and not isinstance(newer, redis.ResponseError)

    def _command(self, chosen: Sequence[HotLane], count: int, block_ms: int | None) -> bytes:
        keys = tuple(hot.key for hot in chosen)
        signature = (keys, count, block_ms)
        packed = self._packed.get(signature)
        if packed is None:
            if len(self._packed) >= PACKED_READS:
                self._packed.clear()
            block = () if block_ms is None else ("BLOCK", block_ms)
            streams = (self._bell, *keys)
            command = ("XREADGROUP", "GROUP", GROUP, self._consumer, "COUNT", count, *block, "STREAMS", *streams)
            packed = self._packed[signature] = pack(*command, *[b">"] * len(streams))
        return packed

    def _sorted(
        self, lanes: HotLanes, chosen: Sequence[HotLane], reply: Sequence[Sequence[object]]
    ) -> tuple[Rings, Found]:
        rings: Rings = []
        found: Found = []
        read: set[bytes] = set()
        for key, raw in reply:
            if key == self._bell:
                rings = _rings(raw)  # type: ignore[arg-type] # the shape of XREADGROUP's answer
                continue
            hot = lanes.get(key)  # type: ignore[arg-type] # as above
            if hot is None:
                continue
            entries = [entry for entry_id, fields in raw if (entry := parse_entry(hot.key, entry_id, fields))]  # type: ignore[attr-defined] # as above
            if len(entries) < len(raw):  # type: ignore[arg-type] # as above
                self._drop_foreign(hot, entries, raw)  # type: ignore[arg-type] # as above
            read.add(hot.key)
            if entries:
                lanes.paid(hot, len(entries), sum(entry.predictions for entry in entries))
                found.append((hot, entries))
        for hot in chosen:
            if hot.key not in read:
                lanes.empty(hot)
        return rings, found

    def _drop_foreign(self, hot: HotLane, ours: Sequence[Entry], raw: Sequence[tuple[bytes, object]]) -> None:
        # Left pending, it would stand for ever at the head of its lane.
        known = {entry.id for entry in ours}
        self._wire.execute(
            settle([Entry(hot.key, entry_id, None, None) for entry_id, _ in raw if entry_id not in known])
        )


def _rings(raw: Sequence[tuple[bytes, Sequence[bytes] | None]]) -> Rings:
    return [
        (ring_id, fields[1].decode(errors="replace")) for ring_id, fields in raw if fields and fields[0] == RING_FIELD
    ]
