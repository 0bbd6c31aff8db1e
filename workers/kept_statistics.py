"""Statistics of versions in Redis: a hash for each, to which all processes of an installation add what they counted.

Added up there, figures stay when a worker ends or a version leaves its memory, and every gateway reads the same ones.
They begin anew when Redis loses its memory, or a version was not asked for a week. Times are kept in microseconds: the
nanoseconds that a hundred thousand jobs wait for a night are more than Redis's integers hold.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from workers.lanes import Keys
from workers.redis_link import Reply, pack
from workers.tallies import BATCH_SUMS, SUMS, BatchTally, Tally, Version

KEPT_MILLISECONDS = 7 * 86_400_000
# Of batches, so many sizes a version; executions of further ones are counted, but by no size.
MOST_SIZES = 64
# Of what Redis holds nobody knows who wrote it: more of it is not looked at, and larger figures are none.
MOST_FIELDS = 1024
MOST_DIGITS = 18
LAST = "last_ms"
NANOSECONDS = 1000  # in a microsecond
TALLIES_A_TIME = 32


def additions(keys: Keys, tallies: Mapping[Version, Tally]) -> list[bytes]:
    """Packed commands that add tallies, all of them or none: the last reply says whether they did."""
    commands = [pack("MULTI")]
    for (model, version), tally in tallies.items():
        key = keys.statistics(model, version)
        commands += [pack("HINCRBY", key, name, number) for name, number in _numbers(tally).items() if number]
        if tally.last_ms:
            commands.append(pack("HSET", key, LAST, tally.last_ms))
        commands.append(pack("PEXPIRE", key, KEPT_MILLISECONDS))
    return [*commands, pack("EXEC")]


def question(keys: Keys, version: Version) -> bytes:
    """The packed command whose reply `tally_of` reads."""
    return pack("HGETALL", keys.statistics(*version))


def tally_of(reply: Reply) -> Tally:
    """All that was ever told of a version; what is not understood is left out."""
    tally = Tally()
    words = reply[: 2 * MOST_FIELDS] if isinstance(reply, list) else []
    for name, value in zip(words[::2], words[1::2], strict=False):
        number = _number(value)
        if number is not None:
            _fill(tally, name.decode(errors="replace"), number)
    return tally


def sizes_question(keys: Keys, version: Version) -> bytes:
    """The packed command whose reply `sizes_of` reads."""
    return pack("HKEYS", keys.statistics(*version))


def sizes_of(reply: Reply) -> set[int]:
    """The batch sizes that are kept of a version."""
    names = reply[:MOST_FIELDS] if isinstance(reply, list) else []
    sizes = (_size(name.decode(errors="replace").partition(":")[0]) for name in names)
    return {size for size in sizes if size is not None}


def within(tally: Tally, kept: Collection[int]) -> Tally:
    """The tally without the sizes of batches for which there is no room beside those that are kept."""
    new = [size for size in sorted(tally.batches) if size not in kept]
    left_out = new[max(0, MOST_SIZES - len(kept)) :]
    if not left_out:
        return tally
    told = Tally()
    told.add(tally)
    told.batches = {size: batch for size, batch in tally.batches.items() if size not in left_out}
    return told


def _numbers(tally: Tally) -> dict[str, int]:
    """What is added to each field: `succeeded`, `queue_us`, and for batches of 8 instances `8:count`, `8:infer_us`."""
    numbers = {_kept_as(name): _kept(name, getattr(tally, name)) for name in SUMS}
    for size, batch in tally.batches.items():
        numbers |= {f"{size}:{_kept_as(name)}": _kept(name, getattr(batch, name)) for name in BATCH_SUMS}
    return numbers


def _kept_as(name: str) -> str:
    return f"{name.removesuffix('_ns')}_us" if name.endswith("_ns") else name


def _kept(name: str, number: int) -> int:
    return round(number / NANOSECONDS) if name.endswith("_ns") else number


_SUMS = {_kept_as(name): name for name in SUMS}
_BATCH_SUMS = {_kept_as(name): name for name in BATCH_SUMS}


def _fill(tally: Tally, field: str, number: int) -> None:
    size, colon, name = field.partition(":")
    if colon:
        batch_size = _size(size)
        if batch_size is not None and name in _BATCH_SUMS:
            _put(tally.batch(batch_size), _BATCH_SUMS[name], number)
    elif field in _SUMS:
        _put(tally, _SUMS[field], number)
    elif field == LAST:
        tally.last_ms = number


def _put(into: Tally | BatchTally, name: str, number: int) -> None:
    setattr(into, name, number * NANOSECONDS if name.endswith("_ns") else number)


def _size(word: str) -> int | None:
    return _number(word.encode())


def _number(word: bytes) -> int | None:
    return int(word) if word.isdigit() and len(word) <= MOST_DIGITS else None
