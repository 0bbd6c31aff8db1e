"""How long a variant takes at growing batches, the largest batch worth running, and whether padding pays.

The sizes double, and the ascent ends where throughput no longer grows: a small dense network does ten times as many
instances a second in batches of 128 as singly, a convolutional one that fills its processor's caches with one image
does a third fewer in batches of 32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from model_store.batching import Batching
from model_store.signature import Tensors
from workers.errors import PredictionFailed, RunnerFailed

# A batch travels through a pipe to TensorFlow and back, and several lie in memory at once.
BATCH_BYTES = 128 * 1024**2
# Whoever comes while a batch runs waits for its end first: no batch is worth a longer wait than this.
BATCH_SECONDS = 0.1
# As good as the best: for one part in twenty of throughput nobody has to wait for a batch of twice the size.
CLOSE = 0.95
# One size without gain may be an odd one (or a disturbed measurement); two in a row are a plateau.
IDLE_SIZES = 2
# Nothing grows so much faster than its instances; 2 images took 328 ms beside a loaded machine's work, and 8 without.
ODD = 1.5
# Padding has to be faster by this factor, twice, to be believed.
PADDING_GAIN = 0.9
PADDED_SIZES = (4, 8, 16, 32, 64)
# No padding is tried where that would take longer: preparations are waited for.
PADDING_SECONDS = 0.02

SecondsAt = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Padding:
    """A batch of `instances` as it is, and filled up to `size`: median seconds of both."""

    instances: int
    size: int
    exact_seconds: float
    padded_seconds: float

    @property
    def pays(self) -> bool:
        return self.padded_seconds < self.exact_seconds * PADDING_GAIN


@dataclass(frozen=True, slots=True)
class Measured:
    """Median seconds of one inference by its number of instances, and the batches that this recommends."""

    seconds: dict[int, float]
    padding: tuple[Padding, ...] = ()

    @property
    def max_batch(self) -> int:
        return best_batch(self.seconds)

    @property
    def batch_seconds(self) -> float:
        """At `max_batch`."""
        return self.seconds[self.max_batch]

    @property
    def batching(self) -> Batching:
        """What serving needs of it: the curve as far as batches of this version go."""
        curve = sorted((size, seconds) for size, seconds in self.seconds.items() if size <= self.max_batch)
        return Batching(tuple(curve), tuple(probe.size for probe in self.padding if probe.pays))


def best_batch(seconds: Mapping[int, float]) -> int:
    """The smallest batch whose throughput is close to the best, among those that take no longer than BATCH_SECONDS.

    The smallest measured one where all take longer.
    """
    quick = [size for size in seconds if seconds[size] <= BATCH_SECONDS] or [min(seconds)]
    best = max(size / seconds[size] for size in quick)
    return min(size for size in quick if size / seconds[size] >= CLOSE * best)


def largest_batch(limit: int, instances: int, *tensors: Tensors) -> int:
    """At most `limit`, and no more than inputs and outputs of BATCH_BYTES; `tensors` are those of `instances`."""
    each = max(sum(tensor.nbytes for tensor in group.values()) for group in tensors) // instances
    return max(1, min(limit, BATCH_BYTES // max(1, each)))


def doubled(limit: int) -> list[int]:
    """1, 2, 4, 8 and so on, and `limit` itself."""
    return [*(2**power for power in range(limit.bit_length()) if 2**power < limit), limit]


def ascend(seconds_at: SecondsAt, limit: int) -> dict[int, float]:
    """Measures batches of doubling size up to `limit`: until throughput stops growing or a batch takes too long.

    A batch that fails, or that kills its runner, ends the ascent: smaller ones serve. Raises what the first one
    raises.
    """
    found: dict[int, float] = {}
    best, idle = 0.0, 0
    for size in doubled(limit):
        try:
            seconds = _undisturbed(seconds_at, size, found)
        except (RunnerFailed, PredictionFailed):
            if not found:
                raise
            break
        found[size] = seconds
        rate = size / seconds
        idle = 0 if rate * CLOSE > best else idle + 1
        best = max(best, rate)
        # The next one takes up to twice as long.
        if idle == IDLE_SIZES or seconds > BATCH_SECONDS / 2:
            break
    return found


def _undisturbed(seconds_at: SecondsAt, size: int, found: Mapping[int, float]) -> float:
    """The time of a size, measured again where it is out of line with the size before: other models serve meanwhile."""
    seconds = seconds_at(size)
    if found and seconds > ODD * size * found[max(found)] / max(found):
        return min(seconds, seconds_at(size))
    return seconds


def compare_padding(seconds_at: SecondsAt, seconds: Mapping[int, float]) -> tuple[Padding, ...]:
    """Tries, for sizes that were measured, whether the smallest batch that would be filled up to them gains by it.

    The smallest is one more than half: whatever lies between has less to fill up.
    """
    sizes = [size for size in PADDED_SIZES if size in seconds and size <= best_batch(seconds)]
    tried: list[Padding] = []
    for size in sizes:
        if seconds[size] > PADDING_SECONDS:
            break
        tried.append(_tried(seconds_at, size // 2 + 1, size))
    return tuple(tried)


def _tried(seconds_at: SecondsAt, instances: int, size: int) -> Padding:
    probe = Padding(instances, size, seconds_at(instances), seconds_at(size))
    # Something else may have run meanwhile: a gain has to show again.
    return Padding(instances, size, seconds_at(instances), seconds_at(size)) if probe.pays else probe
