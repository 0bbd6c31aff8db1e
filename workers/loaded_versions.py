"""Which versions each slot has loaded, in Redis: written by its session once a second, read by whoever rings.

It is a hint. A slot that has lost a version since loads it again; one that is not believed to have it may have it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from workers.cached_predictors import CacheFigures, LoadedPredictor
from workers.lanes import LANE_MILLISECONDS, Keys
from workers.redis_link import Reply, pack

VERSIONS_FIELD = b"versions"
FIGURES_FIELD = b"figures"
BUDGET_FIELD = b"budget"  # written by the worker itself, also before any session ran
# The most used ones; a ring for any other goes where the rendezvous hash says.
MOST_VERSIONS = 1000
# Of what Redis holds nobody knows who wrote it: larger figures are none, nor is a fraction but of seconds.
MOST_DIGITS = 15
NOTHING: frozenset[bytes] = frozenset()


def word(model: str, version: int) -> bytes:
    """A version as it stands in the list."""
    return f"{model}:{version}".encode()


@dataclass(frozen=True, slots=True)
class SlotFigures:
    """What a slot's process says of its predictors; slots that share a process say the same.

    `process` is unique among those of a worker. `unread` is true where the process wrote what this release cannot read.
    """

    process: int
    versions: tuple[str, ...]
    loaded: int
    budget_bytes: int
    memory_bytes: int
    pinned_bytes: int
    hits: int
    misses: int
    loads: int
    load_seconds: float
    evictions: int


def announcement(
    keys: Keys, pool: str, slots: Iterable[str], process: int, loaded: Sequence[LoadedPredictor], figures: CacheFigures
) -> list[bytes]:
    """Packed commands that say what the process of these slots has loaded."""
    named = b"\n".join(word(one.model, one.version) for one in loaded[:MOST_VERSIONS])
    told = json.dumps({"process": process, "loaded": len(loaded), **asdict(figures)})
    commands = []
    for slot in slots:
        key = keys.loaded(pool, slot)
        commands += [
            pack("HSET", key, VERSIONS_FIELD, named, FIGURES_FIELD, told),
            pack("PEXPIRE", key, LANE_MILLISECONDS),
        ]
    return commands


def question(keys: Keys, pool: str, slot: str) -> bytes:
    """The packed command whose reply `versions_of` reads."""
    return pack("HGET", keys.loaded(pool, slot), VERSIONS_FIELD)


def versions_of(reply: Reply) -> frozenset[bytes]:
    """The versions in a reply, as many as a slot may name; none where it has said nothing."""
    return frozenset(reply.split(b"\n", MOST_VERSIONS)[:MOST_VERSIONS]) - {b""} if isinstance(reply, bytes) else NOTHING


def budget_question(keys: Keys, pool: str, slot: str) -> bytes:
    """The packed command whose reply `budget_of` reads."""
    return pack("HGET", keys.loaded(pool, slot), BUDGET_FIELD)


def budget_of(reply: Reply) -> int | None:
    """The budget in a reply, in bytes; None where the slot has said nothing."""
    told = isinstance(reply, bytes) and len(reply) <= MOST_DIGITS and reply.isdigit()
    return int(reply) if told else None


def whole_question(keys: Keys, pool: str, slot: str) -> bytes:
    """The packed command whose reply `figures_of` reads."""
    return pack("HMGET", keys.loaded(pool, slot), VERSIONS_FIELD, FIGURES_FIELD)


def figures_of(reply: Reply) -> SlotFigures | None:
    """What a slot said last; None where it has said nothing, or a worker of another release said something else."""
    if not isinstance(reply, list) or len(reply) != 2 or not isinstance(reply[1], bytes):
        return None
    try:
        told = json.loads(reply[1])
        versions = tuple(sorted(name.decode() for name in versions_of(reply[0])))
        numbers = {field.name: told[field.name] for field in fields(SlotFigures) if field.name != "versions"}
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    seconds = numbers["load_seconds"]
    counts = [number for name, number in numbers.items() if name != "load_seconds"]
    if not isinstance(seconds, int | float) or not all(isinstance(number, int) for number in counts):
        return None
    if not all(abs(number) < 10**MOST_DIGITS for number in (seconds, *counts)):
        return None
    return SlotFigures(versions=versions, **numbers)
