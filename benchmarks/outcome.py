"""What an experiment found: rounds of load and their medians, single figures, and what spoils them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median

from benchmarks.load import Measurement


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of one thing at a number of connections."""

    what: str
    connections: int
    measured: Measurement


@dataclass(frozen=True, slots=True)
class Figures:
    """The medians over all rounds of one thing at one number of connections; latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float
    longest: float
    errors: int

    @classmethod
    def of(cls, measured: Sequence[Measurement]) -> Figures:
        return cls(
            per_second=round(median(one.per_second for one in measured), 1),
            p50=round(median(one.p50 for one in measured), 3),
            p99=round(median(one.p99 for one in measured), 3),
            longest=max(one.longest for one in measured),
            errors=sum(sum(one.errors.values()) for one in measured),
        )


@dataclass(slots=True)
class Outcome:
    """An experiment's outcome. `facts` are figures by name; any problem makes all of them worthless."""

    rounds: list[Round] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def figures(self, what: str, connections: int) -> Figures:
        """Raises statistics.StatisticsError where nothing of the kind was measured."""
        return Figures.of([one.measured for one in self.rounds if (one.what, one.connections) == (what, connections)])

    def ratio(self, what: str, to: str, connections: int) -> float:
        """Requests per second of one divided by the other's."""
        return self.figures(what, connections).per_second / self.figures(to, connections).per_second

    def all_problems(self) -> list[str]:
        """The problems, wrong answers under load included."""
        found = list(self.problems)
        for what, connections in self._measured():
            errors = self.figures(what, connections).errors
            if errors:
                found.append(f"{errors:,} wrong answers of {what} at {connections} connections")
        return found

    def document(self) -> dict[str, object]:
        """As JSON has it; shares and ratios are rounded to four digits."""
        return {
            "figures": [
                {"what": what, "connections": connections} | asdict(self.figures(what, connections))
                for what, connections in self._measured()
            ],
            "facts": {
                name: float(f"{value:.4g}") if value < 1000 else round(value) for name, value in self.facts.items()
            },
            "notes": self.notes,
            "problems": self.all_problems(),
            "rounds": [asdict(one) for one in self.rounds],
        }

    def _measured(self) -> list[tuple[str, int]]:
        # A dictionary keeps the order in which they came.
        return list({(one.what, one.connections): None for one in self.rounds})
