"""What a run found: a JSON document for programs, a Markdown table for people, and plots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks import plots, targets
from benchmarks.machine import machine
from benchmarks.outcome import Outcome
from benchmarks.targets import Document, Verdict

RESULTS = Path(__file__).resolve().parent / "results"


@dataclass(slots=True)
class Report:
    """The outcomes of a run by experiment, and how they came about."""

    started_at: datetime
    generator: str
    seconds: float
    rounds: int
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    took_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def problems(self) -> list[str]:
        """What makes figures worthless."""
        return [f"{name}: {text}" for name, outcome in self.outcomes.items() for text in outcome.all_problems()]

    def document(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        document: dict[str, Any] = {
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "machine": machine(),
            "load": f"{self.generator}; {self.seconds:g} seconds, {self.rounds} rounds",
            "experiments": {
                name: {"text": self.texts[name], "took_seconds": round(self.took_seconds[name], 1)} | outcome.document()
                for name, outcome in self.outcomes.items()
            },
        }
        document["targets"] = [
            {"what": row.target.what, "target": row.target.bound, "measured": row.measured, "verdict": row.verdict}
            for row in targets.rows(document)
        ]
        return document

    def write(self, folder: Path = RESULTS) -> Path:
        """Write the document, the table and the plots, named by the moment; returns the path of the table."""
        folder.mkdir(exist_ok=True)
        stem = self.started_at.strftime("%Y-%m-%dT%H%M%SZ")
        document = self.document()
        (folder / f"{stem}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
        drawn = plots.draw_all(document, folder / stem)
        path = folder / f"{stem}.md"
        path.write_text(table(document, [f"{stem}/{name}" for name in drawn]))
        return path


def table(document: Document, images: list[str]) -> str:
    """The whole report as Markdown, with links to its plots."""
    lines = [f"# Benchmark of {document['started_at'][:10]}", "", *summary(document), ""]
    lines += [f"![{Path(image).stem}]({image})" for image in images]
    lines += ["", *(line for name, found in document["experiments"].items() for line in _section(name, found))]
    return "\n".join(lines).rstrip() + "\n"


def summary(document: Document) -> list[str]:
    """The targets, then what they depend on."""
    missed = [row.target.what for row in targets.rows(document) if row.verdict in (Verdict.MISSED, Verdict.INVALID)]
    lines = [*targets.table(document), ""]
    lines += [f"* missed: {', '.join(missed)}"] if missed else []
    lines += [f"* {name}: {value}" for name, value in document["machine"].items() if value]
    return [*lines, f"* load: {document['load']}", f"* measured: {document['started_at']}"]


def figures_table(found: Document) -> Iterator[str]:
    """The medians of an experiment's rounds."""
    yield "| what | connections | requests/s | p50, ms | p99, ms | errors |"
    yield "|---|---|---|---|---|---|"
    for row in found["figures"]:
        yield (
            f"| {row['what']} | {row['connections']} | {row['per_second']:,.0f} | {row['p50']:.2f} | {row['p99']:.2f} "
            f"| {row['errors']} |"
        )


def _section(name: str, found: Document) -> Iterator[str]:
    yield f"## {name}"
    yield ""
    yield f"{found['text']} ({found['took_seconds']:.0f} s)"
    yield ""
    if found["figures"]:
        yield from figures_table(found)
        yield ""
    yield from (f"* {fact}: {value:,g}" for fact, value in found["facts"].items())
    yield from (f"* {what}: {note}" for what, note in found["notes"].items())
    yield from (f"* **problem: {problem}**" for problem in found["problems"])
    yield ""
