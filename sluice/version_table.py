"""A version and its preparation report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.filesize import decimal
from rich.table import Table

from sluice.answers import Json
from sluice.shown_texts import cell

SHOWN_BATCHES = frozenset({1, 8, 32})


def tables(version: Json) -> Iterator[Table]:
    """The version itself, its tensors, and its preparation: the steps, the variants; each as far as it is known."""
    report = version["report"] or {}
    yield _summary(version, report.get("reason"))
    if version["signature"] is not None:
        yield _signature(version["signature"])
    if report.get("steps"):
        yield _steps(report["steps"])
    if report.get("variants"):
        yield variants(report["variants"], report.get("chosen"))
    if report.get("batching"):
        yield batches(report["batching"])
    if report.get("batching", {}).get("padding"):
        yield padding(report["batching"])


def row(table: Table, *cells: str) -> None:
    """Add a row whose texts are shown as they are: names and messages come from others and are no markup."""
    table.add_row(*map(cell, cells))


def state_of(version: Json) -> str:
    """The state in a word or two: END stands for what was refused, was retired, or was let go by a policy."""
    state = str(version["state"])
    if version["error"] is not None or state not in {"AVAILABLE", "UNLOADING", "END"}:
        return state
    if version["withdrawn"]:
        return f"{state} ({'rolled back' if state == 'AVAILABLE' else 'retired'})"
    return state if state == "AVAILABLE" else f"{state} (by policy)"


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


def variants(found: Json, chosen: str | None) -> Table:
    """What was tried, how far it is from the original, and how fast it is (milliseconds by size of the batch)."""
    heads = ("name", "size", "memory", "|Δ|", "top-1", "milliseconds", "")
    table = Table(*heads, title="Variants", title_justify="left")
    for variant in found:
        verdict = "serves" if variant["name"] == chosen else variant.get("reason") or ""
        row(
            table,
            variant["name"],
            size(variant.get("size_bytes")),
            size(variant.get("memory_bytes")),
            "" if variant.get("max_abs_difference") is None else f"{variant['max_abs_difference']:.1e}",
            number(variant.get("top1_agreement")),
            ", ".join(f"{batch}:{number(took)}" for batch, took in shown_batches(variant.get("latency_ms")).items()),
            verdict,
        )
    return table


def shown_batches(latencies: Mapping[str, float] | None) -> dict[str, float]:
    """Of what was measured by size of the batch: 1, 8, 32 and the largest. A report has all."""
    found = latencies or {}
    largest = max(map(int, found), default=0)
    return {batch: took for batch, took in found.items() if int(batch) in {*SHOWN_BATCHES, largest}}


def size(value: int | None) -> str:
    """Bytes for people, nothing where it is not known."""
    return "" if value is None else decimal(value)


def number(value: float | None) -> str:
    """A figure to three digits, nothing where it is not known."""
    return "" if value is None else f"{value:.3g}"


def batches(batching: Json) -> Table:
    """Throughput by size of the batch."""
    table = Table("instances", "a second", "", title="Batches", title_justify="left")
    for point in batching["curve"]:
        chosen = "largest batch" if point["instances"] == batching["max_batch"] else ""
        row(table, str(point["instances"]), f"{point['instances_per_second']:,.0f}", chosen)
    return table


def padding(batching: Json) -> Table:
    """What filling batches up to another size would do, in milliseconds."""
    table = Table("instances", "ms", "padded to", "ms then", "", title="Padding", title_justify="left")
    for probe in batching["padding"]:
        verdict = "padded" if probe["padded_to"] in batching["pad_to"] else "not padded"
        times = (number(probe["ms"]), str(probe["padded_to"]), number(probe["padded_ms"]))
        row(table, str(probe["instances"]), *times, verdict)
    return table
