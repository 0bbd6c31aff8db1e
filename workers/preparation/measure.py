"""How long a variant takes at growing batches, and the largest batch worth running."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from model_store.signature import Tensors
from workers.errors import PredictionFailed, RunnerFailed

SIZES = (1, 8, 32)
# A batch travels through a pipe to TensorFlow and back, and several lie in memory at once.
BATCH_BYTES = 128 * 1024**2


@dataclass(frozen=True, slots=True)
class Measured:
    """Median seconds of one inference by its number of instances."""

    seconds: dict[int, float]

    @property
    def max_batch(self) -> int:
        return max(self.seconds)

    @property
    def batch_seconds(self) -> float:
        """At the largest batch."""
        return self.seconds[self.max_batch]


def largest_batch(limit: int, instances: int, *tensors: Tensors) -> int:
    """At most `limit`, and no more than inputs and outputs of BATCH_BYTES; `tensors` are those of `instances`."""
    each = max(sum(tensor.nbytes for tensor in group.values()) for group in tensors) // instances
    return max(1, min(limit, BATCH_BYTES // max(1, each)))


def ascend(seconds_at: Callable[[int], float], limit: int, slowest_seconds: float) -> Measured:
    """Measures 1, 8, 32 and `limit` instances, as long as a batch takes no longer than `slowest_seconds`.

    A batch that fails, or that kills its runner, ends the ascent: smaller ones serve. Raises what the first one
    raises.
    """
    found: dict[int, float] = {}
    for size in sorted({*(size for size in SIZES if size < limit), limit}):
        if found and found[max(found)] * size / max(found) > slowest_seconds:
            break
        try:
            seconds = seconds_at(size)
        except (RunnerFailed, PredictionFailed):
            if not found:
                raise
            break
        if found and seconds > slowest_seconds:
            break
        found[size] = seconds
    return Measured(found)
