"""What a process's cache of predictors consists of, and what it says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from workers.runtimes.predictor import Predictor

P = TypeVar("P", bound=Predictor)

# More uses than this count for nothing: what was asked for all the time leaves soon after it was asked for no more.
MOST_USES = 64


@dataclass(frozen=True, slots=True)
class LoadedPredictor:
    """What is in the cache, for heartbeats and listings."""

    model: str
    version: int
    runtime: str
    memory_bytes: int
    leases: int
    uses: int = 0
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """What a cache holds now, and what it did since its process began; seconds are those of all loads together."""

    budget_bytes: int
    memory_bytes: int
    pinned_bytes: int
    hits: int
    misses: int
    loads: int
    load_seconds: float
    evictions: int


@dataclass(slots=True, eq=False)
class Entry(Generic[P]):
    """A predictor in the cache; once `retired` it is in it no more, and closed as soon as nobody leases it."""

    predictor: P
    used: int
    floor: float = 0.0  # the rank that uses counted from when it was used last
    uses: int = 0
    leases: int = 0
    retired: bool = False
    fresh: bool = False  # loaded for a use to come, and counted as that

    @property
    def rank(self) -> tuple[float, int]:
        """The lowest leaves first; of equals, the one that was used longest ago."""
        return self.floor + min(self.uses, MOST_USES), self.used
