"""What an experiment is: a name, a sentence, and a function that makes it on a bench."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.bench import Bench
from benchmarks.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Experiment:
    """`run` raises BenchmarkFailed, LoadFailed and what the client of the gateway raises."""

    name: str
    text: str
    run: Callable[[Bench], Outcome]
