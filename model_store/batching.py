"""How a version's batches are run: what one inference takes by its number of instances, and what padding is worth."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Batching:
    """Measured by a preparation: `curve` has pairs of instances and seconds, in ascending order, and is not empty.

    A batch of fewer instances than one of `pad_to` runs faster when it is filled up to that size.
    """

    curve: tuple[tuple[int, float], ...]
    pad_to: tuple[int, ...] = ()

    def seconds(self, instances: int) -> float:
        """What an inference of so many instances takes: in between two measured sizes, and beyond them, on a line."""
        sizes = [size for size, _ in self.curve]
        place = bisect.bisect_left(sizes, instances)
        if place == 0:
            return self.curve[0][1]
        (below, fast), (above, slow) = self.curve[place - 1], self.curve[min(place, len(sizes) - 1)]
        if below == above:
            return fast * instances / below
        return fast + (slow - fast) * (instances - below) / (above - below)

    def padded(self, instances: int) -> int:
        """The size to run so many instances in: `instances`, or a larger one that is faster.

        A size of `pad_to` speaks for batches of more than half of it: those were compared.
        """
        place = bisect.bisect_left(self.pad_to, instances)
        if place < len(self.pad_to) and self.pad_to[place] < 2 * instances:
            return self.pad_to[place]
        return instances

    @classmethod
    def from_report(cls, report: Mapping[str, Any] | None) -> Batching | None:
        """What a preparation's report says about batches up to the chosen size; None where it was not measured yet."""
        found = (report or {}).get("batching")
        if not found:
            return None
        curve = [(row["instances"], row["ms"] / 1000) for row in found["curve"]]
        largest = found["max_batch"]
        return cls(tuple(sorted(point for point in curve if point[0] <= largest)), tuple(sorted(found["pad_to"])))
