"""A version and its preparation report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from sluice.client import Json


def tables(version: Json) -> Iterator[Table]:
    """The version itself, its tensors, and its preparation: the steps, the variants; each as far as it is known."""
    report = version["report"] or {}
    yield _summary(version, report.get("reason"))
    if version["signature"] is not None:
        yield _signature(version["signature"])
    if report.get("steps"):
        yield _steps(report["steps"])
    if report.get("variants"):
        yield _variants(report["variants"], report.get("chosen"))
    if report.get("batching"):
        yield _batches(report["batching"])


def row(table: Table, *cells: str) -> None:
    """Add a row whose texts are shown as they are: names and messages come from others and are no markup."""
    table.add_row(*map(escape, cells))


def state_of(version: Json) -> str:
    """The state in a word or two: END stands for what was refused and for what was retired."""
    retired = version["state"] == "END" and version["error"] is None
    return "END (retired)" if retired else str(version["state"])


def moment(text: str) -> str:
    """A time of the interface (RFC 3339, UTC), to the minute."""
    return text[:16].replace("T", " ")


def _summary(version: Json, reason: str | None) -> Table:
    table = Table(title=f"{version['model']} version {version['version']}", show_header=False, title_justify="left")
    row(table, "state", state_of(version))
    if version["error"] is not None:
        row(table, "error", f"{version['error']['message']} ({version['error']['code']})")
    if version["preparation"] is not None and not version["preparation"]["done"]:
        row(table, "preparation", f"{version['preparation']['step']}, attempt {version['preparation']['attempt']}")
    row(table, "uploaded", f"{moment(version['created_at'])} by {version['uploaded_by']}")
    if version["signed_by"] is not None:
        row(table, "signed by", version["signed_by"])
    row(table, "file", f"{version['format']}, {decimal(version['size_bytes'])}")
    row(table, "SHA-256", version["digest"])
    if version["labels"]:
        row(table, "labels", " ".join(version["labels"]))
    if reason:
        row(table, "chosen", reason)
    if failure := (version["report"] or {}).get("failed_repeat"):
        row(table, "failed repeat", f"{failure['message']} ({failure['code']})")
    return table


def _signature(signature: Json) -> Table:
    table = Table("", "name", "dtype", "shape", title="Signature", title_justify="left")
    for kind in ("inputs", "outputs"):
        for tensor in signature[kind]:
            shape = ", ".join("any" if length is None else str(length) for length in tensor["shape"])
            row(table, kind.removesuffix("s"), tensor["name"], tensor["dtype"], f"({shape})")
    return table


def _steps(steps: Json) -> Table:
    table = Table("step", "outcome", "seconds", "found", title="Preparation", title_justify="left")
    for step in steps:
        row(table, step["name"], step["outcome"], f"{step['seconds']:.2f}", step["detail"])
    return table


def _variants(variants: Json, chosen: str | None) -> Table:
    """What was tried, how far it is from the original, and how fast it is (milliseconds by size of the batch)."""
    table = Table("name", "memory", "difference", "milliseconds", "", title="Variants", title_justify="left")
    for variant in variants:
        verdict = "serves" if variant["name"] == chosen else variant.get("reason") or ""
        verdict = "; ".join(filter(None, (verdict, variant.get("detail"))))
        row(
            table,
            variant["name"],
            "" if variant.get("memory_bytes") is None else decimal(variant["memory_bytes"]),
            "" if variant.get("max_abs_difference") is None else f"{variant['max_abs_difference']:.1e}",
            ", ".join(f"{batch}: {latency:.3g}" for batch, latency in (variant.get("latency_ms") or {}).items()),
            verdict,
        )
    return table


def _batches(batching: Json) -> Table:
    """Throughput by size of the batch, and what filling batches up would do."""
    table = Table("instances", "a second", "", title="Batches", title_justify="left")
    for point in batching["curve"]:
        chosen = "largest batch" if point["instances"] == batching["max_batch"] else ""
        row(table, str(point["instances"]), f"{point['instances_per_second']:,.0f}", chosen)
    for probe in batching["padding"]:
        verdict = "padded" if probe["padded_to"] in batching["pad_to"] else "not padded"
        times = f"{probe['ms']:.3g} ms, as {probe['padded_to']}: {probe['padded_ms']:.3g} ms"
        row(table, str(probe["instances"]), times, verdict)
    return table
