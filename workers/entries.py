"""What a read of the streams brought, sorted for running: predictions and jobs by version and priority."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from monitoring.metrics import FOREIGN_ENTRIES
from workers.hot_lanes import HotLane, Place, Version
from workers.lanes import BUNDLE_FIELD, GROUP, JOB_FIELD, Bundle, Priority, entry_ms, unpack_bundle
from workers.protocols.body import Body
from workers.redis_link import pack

log = logging.getLogger(__name__)

JOB_PREDICTIONS = 2

Asked = tuple[bytes, int, Body, int]
"""Where the answer goes, the prediction's number there, its body, and when it was laid out (`entry_ms`)."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a lane: a bundle of synchronous predictions or the number of a job."""

    lane_key: bytes
    id: bytes
    bundle: Bundle | None
    job: int | None
    # Of a chunk of a file, which is as much work as many others' jobs.
    instances: int = 0

    @property
    def predictions(self) -> int:
        """What it takes of a turn, in predictions: a job is claimed and finished in SQL besides."""
        return len(self.bundle.predictions) if self.bundle else max(JOB_PREDICTIONS, self.instances)

    @property
    def limit_seconds(self) -> float:
        """How long a synchronous entry's callers wait from when it was laid; 0 for a job, for which nobody does."""
        return self.bundle.limit_ms / 1000 if self.bundle else 0.0

    def expired(self, now_ms: float) -> bool:
        """Whether a synchronous entry's deadline has passed by Redis's clock: nobody waits for it any more."""
        return self.bundle is not None and entry_ms(self.id) + self.bundle.limit_ms < now_ms


@dataclass(slots=True)
class Group:
    """Entries of one version and priority, to be run together."""

    version: Version
    priority: Priority
    bundles: list[Entry] = field(default_factory=list)
    jobs: list[Entry] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        return self.bundles + self.jobs


def job_entry(number: int, instances: int) -> bytes:
    """A job as its lane's entry says it; with the size of a chunk of a file."""
    return b"%d:%d" % (number, instances) if instances else b"%d" % number


def parse_entry(lane_key: bytes, entry_id: bytes, fields: Sequence[bytes] | None) -> Entry | None:
    """The entry of a stream's fields; None where it was deleted, or is not one of ours: that is counted and logged."""
    if not fields:
        return None
    try:
        return _parsed(lane_key, entry_id, fields)
    except ValueError as error:
        foreign(str(error))
        return None


def foreign(why: str) -> None:
    """To be told of every entry that is not one of ours, before it is dropped."""
    FOREIGN_ENTRIES.inc()
    log.warning("a foreign entry was dropped: %s", why)


def _parsed(lane_key: bytes, entry_id: bytes, fields: Sequence[bytes]) -> Entry:
    if len(fields) != 2:
        raise ValueError(f"it has {len(fields) // 2} fields instead of one")
    name, value = fields
    if name == JOB_FIELD:
        number, _, instances = value.partition(b":")
        return Entry(lane_key, entry_id, None, _counted(number), _counted(instances or b"0"))
    if name == BUNDLE_FIELD:
        return Entry(lane_key, entry_id, unpack_bundle(value), None)
    raise ValueError("its field is neither a job's nor a bundle's")


def _counted(text: bytes) -> int:
    """A number as a column of jobs holds it; raises ValueError."""
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError("a job's number or size is none that a job can have")
    return number


def grouped(found: Sequence[tuple[HotLane, Sequence[Entry]]]) -> list[Group]:
    """Entries of all lanes by version and priority, in the order in which they were read."""
    groups: dict[Place, Group] = {}
    for hot, entries in found:
        if not entries:
            continue
        group = groups.get(hot.place)
        if group is None:
            group = groups[hot.place] = Group(*hot.place)
        for entry in entries:
            (group.bundles if entry.bundle else group.jobs).append(entry)
    return list(groups.values())


def settle(entries: Sequence[Entry]) -> list[bytes]:
    """Packed commands that acknowledge and delete entries."""
    by_lane: dict[bytes, list[bytes]] = {}
    for entry in entries:
        by_lane.setdefault(entry.lane_key, []).append(entry.id)
    commands: list[bytes] = []
    for key, ids in by_lane.items():
        commands += (pack("XACK", key, GROUP, *ids), pack("XDEL", key, *ids))
    return commands
