"""A version and its preparation report as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table

from sluice.client import Json


def tables(version: Json) -> Iterator[Table]:
    """The version itself, its tensors, its variants and the steps of its preparation, each as far as it is known."""
    yield _summary(version)
    if version["signature"] is not None:
        yield _signature(version["signature"])
    if version["variants"]:
        yield _variants(version["variants"])
    steps = (version["report"] or {}).get("steps", [])
    if steps:
        yield _steps(steps)


def row(table: Table, *cells: str) -> None:
    """Add a row whose texts are shown as they are: names and messages come from others and are no markup."""
    table.add_row(*map(escape, cells))


def _summary(version: Json) -> Table:
    table = Table(title=f"{version['model']} version {version['version']}", show_header=False, title_justify="left")
    row(table, "state", version["state"])
    if version["error"] is not None:
        row(table, "error", f"{version['error']['message']} ({version['error']['code']})")
    if version["preparation"] is not None and not version["preparation"]["done"]:
        row(table, "preparation", f"{version['preparation']['step']}, attempt {version['preparation']['attempt']}")
    row(table, "uploaded", f"{version['created_at'][:19]} by {version['uploaded_by']}")
    row(table, "file", f"{version['format']}, {decimal(version['size_bytes'])}")
    row(table, "SHA-256", version["digest"])
    if version["labels"]:
        row(table, "labels", " ".join(version["labels"]))
    if version["batch_seconds"] is not None:
        row(table, "speed", f"{version['max_batch']} instances in {1000 * version['batch_seconds']:.3f} ms")
    return table


def _signature(signature: Json) -> Table:
    table = Table("", "name", "dtype", "shape", title="Signature", title_justify="left")
    for kind in ("inputs", "outputs"):
        for tensor in signature[kind]:
            shape = ", ".join("any" if length is None else str(length) for length in tensor["shape"])
            row(table, kind.removesuffix("s"), tensor["name"], tensor["dtype"], f"({shape})")
    return table


def _variants(variants: Json) -> Table:
    table = Table("name", "runtime", "size", "memory", "", title="Variants", title_justify="left")
    for variant in variants:
        chosen = "serves" if variant["chosen"] else ""
        size, memory = decimal(variant["size_bytes"]), decimal(variant["memory_bytes"])
        row(table, variant["name"], variant["runtime"], size, memory, chosen)
    return table


def _steps(steps: Json) -> Table:
    """One row a step: what every step has in columns, what it found as `name value`."""
    table = Table("step", "outcome", "seconds", "found", title="Preparation", title_justify="left")
    for step in steps:
        known = dict(step)
        name, outcome = str(known.pop("step", known.pop("name", ""))), str(known.pop("outcome", ""))
        seconds = known.pop("seconds", None)
        found = ", ".join(f"{name} {_short(value)}" for name, value in known.items() if value not in (None, [], {}))
        row(table, name, outcome, "" if seconds is None else f"{seconds:.2f}", found)
    return table


def _short(value: Json) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "(" + ", ".join(f"{name} {_short(part)}" for name, part in value.items()) + ")"
    if isinstance(value, list):
        return "[" + ", ".join(map(_short, value)) + "]"
    return str(value)
