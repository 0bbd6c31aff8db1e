"""Ringing: telling a slot that a lane woke up, and starting a session on it where none runs."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from workers.lanes import GROUP, LANE_MILLISECONDS, RING_FIELD, WEIGHT_FIELD, Keys
from workers.loaded_versions import word
from workers.redis_link import Reply, pack
from workers.slots import ranked

DRAIN_MILLISECONDS = 3000
BELL_RINGS = 10_000


@dataclass(frozen=True, slots=True)
class Ring:
    """One lane to wake on one slot: packed commands, and what to do with the last one's reply."""

    pool: str
    slot: str
    token: str
    commands: list[bytes]

    def started(self, replies: Sequence[Reply]) -> bool:
        """Whether this ring set the slot's key, so that its sender has to send the Celery task."""
        return replies[-1] in (b"OK", "OK")


def ring(keys: Keys, pool: str, lane: str, slot: str, weight: float = 1.0) -> Ring:
    """Commands that wake `lane` on `slot`, and tell the weight that it has there.

    Each ring creates the groups it needs (BUSYGROUP is the usual reply): one lane without a group would fail the
    slot's whole read. The drain key is set with NX: only the session itself keeps it alive.
    """
    token, bell, key = secrets.token_hex(8), keys.bell(pool, slot), keys.lane(lane)
    return Ring(
        pool,
        slot,
        token,
        [
            pack("XGROUP", "CREATE", key, GROUP, "0", "MKSTREAM"),
            pack("PEXPIRE", key, LANE_MILLISECONDS),
            pack("XGROUP", "CREATE", bell, GROUP, "0", "MKSTREAM"),
            pack("XADD", bell, "MAXLEN", "~", BELL_RINGS, "*", RING_FIELD, lane, WEIGHT_FIELD, f"{weight:g}"),
            pack("PEXPIRE", bell, LANE_MILLISECONDS),
            pack("SET", keys.drain(pool, slot), token, "NX", "PX", DRAIN_MILLISECONDS),
        ],
    )


Loaded = Mapping[str, Collection[bytes]]
"""What each slot has loaded, as far as it is known (workers/loaded_versions.py)."""


def choose(slots: tuple[str, ...], model: str, version: int, attempt: int, loaded: Loaded | None = None) -> str | None:
    """The slot for a lane's `attempt`-th ring, should those before not serve: first those that have the version loaded.

    Within either kind by the version's own order, so that whoever knows the same chooses the same.
    """
    order = ranked(f"{model}:{version}", slots)
    if loaded:
        wanted = word(model, version)
        # A sort keeps the order of equals.
        order = tuple(sorted(order, key=lambda slot: wanted not in loaded.get(slot, ())))
    return order[attempt % len(order)] if order else None
