"""What a run found: figures by server and number of connections, as JSON for programs and as a table for people."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from statistics import median

from benchmarks.load import Measurement

FLOOR = "floor"
SLUICE = "sluice"
RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement of one server."""

    server: str
    connections: int
    measured: Measurement


@dataclass(frozen=True, slots=True)
class Figures:
    """The medians over all rounds of one server at one number of connections; latencies in milliseconds."""

    per_second: float
    p50: float
    p99: float
    longest: float
    errors: int

    @classmethod
    def of(cls, measured: list[Measurement]) -> Figures:
        return cls(
            per_second=round(median(one.per_second for one in measured), 1),
            p50=round(median(one.p50 for one in measured), 3),
            p99=round(median(one.p99 for one in measured), 3),
            longest=max(one.longest for one in measured),
            errors=sum(sum(one.errors.values()) for one in measured),
        )


class Report:
    """All rounds of a run, and the machine on which they were measured."""

    def __init__(self, rounds: list[Round], generator: str, started_at: datetime) -> None:
        self._rounds = rounds
        self._generator = generator
        self._started_at = started_at

    @property
    def errors(self) -> int:
        """Answers that were no predictions; any makes the figures worthless."""
        return sum(sum(one.measured.errors.values()) for one in self._rounds)

    def write(self, folder: Path = RESULTS) -> Path:
        """Write both files, named by the moment; returns the path of the table."""
        folder.mkdir(exist_ok=True)
        stem = self._started_at.strftime("%Y-%m-%dT%H%M%SZ")
        (folder / f"{stem}.json").write_text(json.dumps(self.document(), indent=2) + "\n")
        table = folder / f"{stem}.md"
        table.write_text(self.table())
        return table

    def document(self) -> dict[str, object]:
        return {
            "started_at": self._started_at.isoformat(timespec="seconds"),
            "generator": self._generator,
            "machine": machine(),
            "rounds": [asdict(one) for one in self._rounds],
            "figures": [
                {
                    "connections": connections,
                    "ratio": ratio(floor, sluice),
                    FLOOR: asdict(floor),
                    SLUICE: asdict(sluice),
                }
                for connections, floor, sluice in self.figures()
            ],
        }

    def figures(self) -> Iterator[tuple[int, Figures, Figures]]:
        """Connections, the floor's figures and Sluice's."""
        for connections in sorted({one.connections for one in self._rounds}):
            floor, sluice = (
                Figures.of(
                    [one.measured for one in self._rounds if (one.server, one.connections) == (name, connections)]
                )
                for name in (FLOOR, SLUICE)
            )
            yield connections, floor, sluice

    def table(self) -> str:
        """Markdown."""
        lines = [
            f"# Predictions per second, {self._started_at:%Y-%m-%d %H:%M} UTC",
            "",
            "One 28x28 digit and a token in each request; medians of all rounds; latencies (p50, p99) in milliseconds.",
            "The floor is a FastAPI route that checks the same token, parses the same body and returns ten floats.",
            "",
            "| connections | floor, requests/s | Sluice, requests/s | ratio | floor, ms | Sluice, ms | errors |",
            "|---|---|---|---|---|---|---|",
        ]
        lines += [
            f"| {connections} | {floor.per_second:,.0f} | {sluice.per_second:,.0f} | **{ratio(floor, sluice):.2f}** "
            f"| {floor.p50:.2f} / {floor.p99:.2f} | {sluice.p50:.2f} / {sluice.p99:.2f} "
            f"| {floor.errors + sluice.errors} |"
            for connections, floor, sluice in self.figures()
        ]
        lines += ["", *(f"* {name}: {value}" for name, value in machine().items()), f"* load: {self._generator}"]
        return "\n".join(lines) + "\n"


def ratio(floor: Figures, sluice: Figures) -> float:
    return round(sluice.per_second / floor.per_second, 3)


def machine() -> dict[str, str]:
    """What the figures depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in cpuinfo.splitlines() if line.startswith("model name")]
    return {
        "processors": f"{len(os.sched_getaffinity(0))} x {models[0] if models else platform.machine()}",
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit(),
    }


def commit() -> str:
    """The commit that was measured, marked where files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=RESULTS.parent)
    return done.stdout.strip()
