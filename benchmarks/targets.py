"""The targets: what each is about, which figure decides it, and whether it holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Document = Mapping[str, Any]
"""A run's results as `report.py` writes them."""


class Verdict(StrEnum):
    """What may be said of a target after a run."""

    HOLDS = "holds"
    MISSED = "missed"
    REPORTED = "reported"
    INVALID = "invalid"
    UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one fact of an experiment; `least` or `most`, or neither for what is only reported."""

    what: str
    experiment: str
    fact: str
    least: float | None = None
    most: float | None = None
    unit: str = ""

    @property
    def bound(self) -> str:
        """As the table shows it."""
        if self.least is not None:
            return f"≥ {self.least:,g}{self.unit}"
        return "reported" if self.most is None else f"≤ {self.most:,g}{self.unit}"

    def row(self, document: Document) -> Row:
        """What a run found of it."""
        found = document["experiments"].get(self.experiment)
        measured = None if found is None else found["facts"].get(self.fact)
        if measured is None:
            return Row(self, None, Verdict.INVALID if found and found["problems"] else Verdict.UNMEASURED)
        if found["problems"]:
            return Row(self, measured, Verdict.INVALID)
        return Row(self, measured, self._verdict(measured))

    def _verdict(self, measured: float) -> Verdict:
        if self.least is None and self.most is None:
            return Verdict.REPORTED
        holds = (self.least is None or measured >= self.least) and (self.most is None or measured <= self.most)
        return Verdict.HOLDS if holds else Verdict.MISSED


@dataclass(frozen=True, slots=True)
class Row:
    """A target beside its measured value, which is None where there is none."""

    target: Target
    measured: float | None
    verdict: Verdict

    @property
    def value(self) -> str:
        """As the table shows it."""
        if self.measured is None:
            return "-"
        digits = 0 if self.measured >= 20 else 2
        return f"{self.measured:,.{digits}f}{self.target.unit}"


TARGETS = (
    Target("requests/s ÷ floor, 32 connections", "throughput", "requests/s to floor at 32", least=1.10),
    Target("requests/s ÷ floor, 128 connections", "throughput", "requests/s to floor at 128", least=1.10),
    Target("p50 ÷ floor's p50, 1 connection", "throughput", "p50 to floor at 1", most=4),
    Target("p99 ÷ p50, 32 connections", "throughput", "p99 to p50 at 32", most=3),
    Target("binary tensors ÷ JSON, requests/s, 32 connections", "binary", "binary to JSON at 32", least=1),
    Target("binary tensors ÷ JSON, requests/s, 128 connections", "binary", "binary to JSON at 128", least=1),
    Target(
        "binary tensors ÷ JSON for a photograph of 224 x 224 x 3, requests/s, 8 connections",
        "photographs",
        "binary to JSON, photographs",
        least=5,
    ),
    Target(
        "16 instances a request: instances/s ÷ single-instance requests/s", "instances", "instances/s, 16 to 1", least=5
    ),
    Target(
        "MobileNetV2, binary tensors ÷ ONNX Runtime alone",
        "compute",
        "to ONNX Runtime alone, binary tensors",
        least=0.90,
    ),
    Target("MobileNetV2, JSON ÷ ONNX Runtime alone", "compute", "to ONNX Runtime alone, JSON"),
    Target("jobs accepted/s ÷ predictions/s, SQLite", "submits", "submits to predictions, SQLite", least=0.25),
    Target("jobs accepted/s ÷ predictions/s, PostgreSQL", "submits", "submits to predictions, PostgreSQL", least=0.25),
    Target("the same while others run, SQLite", "submits", "submits while jobs run to predictions, SQLite"),
    Target("the same while others run, PostgreSQL", "submits", "submits while jobs run to predictions, PostgreSQL"),
    Target(
        "draining 50,000 jobs: jobs/s ÷ predictions/s, SQLite",
        "backlog",
        "jobs/s from 50000 to predictions/s",
        least=0.5,
    ),
    Target("draining: jobs/s from 50,000 ÷ from 1,000, SQLite", "backlog", "jobs/s, long backlog to short", least=1),
    Target(
        "draining 50,000 jobs: jobs/s ÷ predictions/s, PostgreSQL",
        "backlog-postgresql",
        "jobs/s from 50000 to predictions/s",
        least=0.5,
    ),
    Target(
        "draining: jobs/s from 50,000 ÷ from 1,000, PostgreSQL",
        "backlog-postgresql",
        "jobs/s, long backlog to short",
        least=1,
    ),
    Target(
        "a batch of a file ÷ a script of one process that parses with json, rows/s",
        "batch-file",
        "batch to script with json",
        least=0.5,
    ),
    Target("the same ÷ a script that parses with orjson", "batch-file", "batch to script with orjson"),
    Target(
        "memory of a process at the end of a batch beyond that in its first tenth",
        "batch-file",
        "memory, MB more at the end than in the first tenth",
        most=60,
        unit=" MB",
    ),
    Target(
        "the Redis command whose time grew most, 50,000 waiting ÷ 1,000",
        "backlog",
        "times as long, the Redis command that grew most",
    ),
    Target("100 clients ÷ 1, requests/s, 128 connections", "clients", "requests/s of 100 clients to 1", least=0.60),
    Target("500 models in 1 GiB: share of batches whose model is in memory", "many-models", "hit rate", least=0.6),
    Target(
        "500 models in 1 GiB: memory of the process beyond its start ÷ budget",
        "many-models",
        "memory beyond the start to budget",
        most=1.5,
    ),
    Target("10 versions ÷ 1, requests/s, 128 connections", "versions", "requests/s over 10 versions to 1"),
    Target(
        "100 versions ÷ 1, requests/s, 128 connections", "versions", "requests/s over 100 versions to 1", least=0.55
    ),
    Target(
        "300 versions ÷ 1, requests/s, 128 connections", "versions", "requests/s over 300 versions to 1", least=0.50
    ),
    Target(
        "p50 of a job while another client has 20,000 waiting ÷ idle", "fairness", "p50 of a job, busy to idle", most=5
    ),
    Target(
        "p50 of a synchronous prediction while 20,000 jobs wait ÷ idle",
        "fairness",
        "p50 of a prediction, busy to idle",
    ),
    Target(
        "p99 of predictions beside 1,000 slow connections ÷ alone",
        "slowness",
        "p99 beside slow callers to p99 alone",
        most=2,
    ),
    Target("two gateways ÷ one, requests/s, 32 connections", "gateways", "two gateways to one at 32"),
    Target("two gateways ÷ one, requests/s, 128 connections", "gateways", "two gateways to one at 128"),
    Target("with limits ÷ without, requests/s, 32 connections", "limits", "with limits to without at 32", least=0.95),
    Target("with limits ÷ without, requests/s, 128 connections", "limits", "with limits to without at 128", least=0.95),
    Target(
        "let in ÷ allowed, a client at 3 times its rate, two gateways",
        "rate",
        "let in to allowed, two gateways",
        least=0.95,
        most=1.05,
    ),
    Target(
        "append-only file ÷ memory only, requests/s, 32 connections", "append-only", "append-only to memory only at 32"
    ),
    Target(
        "append-only file ÷ memory only, requests/s, 128 connections",
        "append-only",
        "append-only to memory only at 128",
    ),
    Target("memory of a gateway", "throughput", "gateway, MB afterwards", most=120, unit=" MB"),
    Target(
        "memory of a prediction process with mnist",
        "throughput",
        "prediction process, MB afterwards",
        most=140,
        unit=" MB",
    ),
    Target("memory of its parent", "throughput", "its parent, MB afterwards", unit=" MB"),
    Target("start to ready, gateway", "starts", "gateway, start to ready, s", most=2, unit=" s"),
    Target("start to first answer, worker", "starts", "worker, start to first answer, s", most=3, unit=" s"),
    Target("right answers of 20,000 as JSON", "answers", "right answers to different digits as JSON", least=20_000),
    Target(
        "right answers of 20,000 as binary tensors",
        "answers",
        "right answers to different digits as binary tensors",
        least=20_000,
    ),
)


def rows(document: Document) -> Sequence[Row]:
    """All targets beside what a run found."""
    return [target.row(document) for target in TARGETS]


def table(document: Document, *, measured_only: bool = False) -> list[str]:
    """Lines of a Markdown table."""
    lines = ["| what | target | measured | |", "|---|---|---|---|"]
    for row in rows(document):
        if measured_only and row.verdict == Verdict.UNMEASURED:
            continue
        verdict = f"**{row.verdict}**" if row.verdict in (Verdict.MISSED, Verdict.INVALID) else str(row.verdict)
        lines.append(f"| {row.target.what} | {row.target.bound} | {row.value} | {verdict} |")
    return lines
