"""What a run found, as JSON for programs and as tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from benchmarks.peers.forms import BINARY, JSON
from benchmarks.peers.measuring import Result, good_per_second
from benchmarks.peers.workload import DIGITS, PHOTOGRAPHS

RESULTS = Path(__file__).resolve().parent.parent / "results"
# Of a reason: what failed stands first, the cause last.
FIRST, LAST = 100, 250
TITLES = {
    (DIGITS, JSON): "One 28x28 digit a request, as JSON",
    (DIGITS, BINARY): "One 28x28 digit a request, as binary float32",
    (PHOTOGRAPHS, JSON): "MobileNetV2, one image of 224x224x3 a request, as JSON (1 MB)",
    (PHOTOGRAPHS, BINARY): "MobileNetV2, one image of 224x224x3 a request, as binary float32 (600 kB)",
}


@dataclass(frozen=True, slots=True)
class Run:
    """All results, how each server was set up, and where and when that was."""

    started_at: datetime
    seconds: float
    machine: Mapping[str, str]
    settings: Mapping[str, str]
    results: Sequence[Result]

    def write(self, folder: Path = RESULTS) -> Path:
        """Write both files, named by the moment; returns the path of the tables."""
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{self.started_at:%Y-%m-%dT%H%M%SZ}-peers"
        (folder / f"{stem}.json").write_text(json.dumps(self.document(), indent=2) + "\n")
        tables = folder / f"{stem}.md"
        tables.write_text(self.tables())
        return tables

    def document(self) -> dict[str, object]:
        return {
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "seconds": self.seconds,
            "generator": "wrk -t1",
            "machine": dict(self.machine),
            "settings": dict(self.settings),
            "results": [asdict(result) for result in self.results],
        }

    def tables(self) -> str:
        """Markdown: a table for each workload and kind of body, what failed, the settings, and the machine."""
        lines = [f"# Sluice and what else there is, {self.started_at:%Y-%m-%d %H:%M} UTC", ""]
        lines += [
            f"Predictions per second by wrk with one thread on the same machine, {self.seconds:g} seconds each, and "
            "below them the latencies p50 / p99 in milliseconds. Answers were compared with ONNX Runtime's own before. "
            "Sluice checks a token with each request; the others check nothing.",
            "",
        ]
        for (workload, kind), title in TITLES.items():
            chosen = [one for one in self.results if (one.workload, one.kind) == (workload, kind)]
            if chosen:
                lines += [f"## {title}", "", *table(chosen), ""]
        lines += ["## How each is set up", "", *(f"* **{name}**: {text}" for name, text in self.settings.items()), ""]
        lines += [f"* {name}: {value}" for name, value in self.machine.items()]
        return "\n".join(lines) + "\n"


def table(results: Sequence[Result]) -> list[str]:
    """Lines of Markdown: a row for each result, what failed below them."""
    connections = sorted({number for one in results for number in one.measured})
    header = ["server", "version", "body", *(f"{number} connections" for number in connections), "errors"]
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    for one in results:
        cells = [one.server, one.version, one.form, *(cell(one, number) for number in connections), errors(one)]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [""] * any(one.failed for one in results)
    lines += [f"{one.server} ({one.form}) failed: {shortened(one.failed)}" for one in results if one.failed]
    return lines


def cell(result: Result, connections: int) -> str:
    found = result.measured.get(connections)
    if found is None:
        return "failed" if result.failed else "not measured"
    return f"{good_per_second(found):,.0f}<br>{found.p50:.2f} / {found.p99:.2f}"


def errors(result: Result) -> str:
    """How many answers were no predictions, by the number of connections."""
    found = {number: sum(one.errors.values()) for number, one in result.measured.items()}
    return ", ".join(f"{count:,} at {number}" for number, count in found.items() if count) or "0"


def shortened(reason: str) -> str:
    line = " ".join(reason.split())
    return line if len(line) <= FIRST + LAST else f"{line[:FIRST]} … {line[-LAST:]}"
