"""The plots of a run, as SVG: drawn from its document alone, the same bytes for the same figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.targets import Document

SIZE_INCHES = (9.0, 3.6)
COLOURS = {"Sluice": "#1f6f8b", "floor": "#a0a0a0"}
# Without these, each file would have its own date and random identifiers in it.
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "sluice",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
}
UNDATED = {"Date": None, "Creator": None}


def draw_all(document: Document, folder: Path) -> list[str]:
    """Draw what the document has figures for into the folder; returns the names of the files."""
    import matplotlib as mpl

    mpl.use("Agg")
    drawn = []
    for name, draw, needs in PLOTS:
        if needs <= document["experiments"].keys() and _complete(document, needs):
            folder.mkdir(exist_ok=True)
            _draw(document, draw, folder / f"{name}.svg")
            drawn.append(f"{name}.svg")
    return drawn


def connections(document: Document, left: Axes, right: Axes) -> None:
    """Throughput and latency over the number of connections."""
    rows = document["experiments"]["throughput"]["figures"]
    for name, colour in COLOURS.items():
        found = [row for row in rows if row["what"] == name]
        numbers = [row["connections"] for row in found]
        left.plot(numbers, [row["per_second"] for row in found], "o-", color=colour, label=name)
        right.plot(numbers, [row["p50"] for row in found], "o-", color=colour, label=f"{name}, p50")
        right.plot(numbers, [row["p99"] for row in found], "o:", color=colour, label=f"{name}, p99")
    left.set_title("Predictions per second")
    right.set_title("Latency, milliseconds")
    right.set_yscale("log")
    for axes in (left, right):
        _count_axis(axes, sorted({row["connections"] for row in rows}), "connections")
        axes.legend(frameon=False)
    _from_zero(left)


def batches(document: Document, left: Axes, right: Axes) -> None:
    """Instances in a batch over the load, and processor time by what took it."""
    facts = document["experiments"]["throughput"]["facts"]
    start = "instances in a batch at "
    sizes = {int(name.removeprefix(start)): value for name, value in facts.items() if name.startswith(start)}
    left.plot(list(sizes), list(sizes.values()), "o-", color=COLOURS["Sluice"])
    left.set_title("Instances in one inference, on average")
    _count_axis(left, list(sizes), "connections")
    _from_zero(left)
    by_part: dict[str, dict[int, float]] = {}
    for name, value in facts.items():
        part, found, number = name.partition(", processor µs a prediction at ")
        if found:
            by_part.setdefault(part, {})[int(number)] = value
    for part, values in by_part.items():
        right.plot(list(values), list(values.values()), "o-", label=part)
    right.set_title("Processor time for one prediction, µs")
    _count_axis(right, list(sizes), "connections")
    _from_zero(right)
    if by_part:
        right.legend(frameon=False)


def crowds(document: Document, left: Axes, right: Axes) -> None:
    """Throughput over versions and over clients."""
    for axes, experiment, noun in ((left, "versions", "versions"), (right, "clients", "clients")):
        rows = document["experiments"][experiment]["figures"]
        numbers = [int(str(row["what"]).split()[0]) for row in rows]
        axes.plot(numbers, [row["per_second"] for row in rows], "o-", color=COLOURS["Sluice"])
        axes.set_title(f"Predictions per second, {rows[0]['connections']} connections")
        _count_axis(axes, numbers, noun)
        _from_zero(axes)


def backlog(document: Document, left: Axes, right: Axes) -> None:
    """Jobs per second over what waits, on each database."""
    for axes, experiment, database in ((left, "backlog", "SQLite"), (right, "backlog-postgresql", "PostgreSQL")):
        found = document["experiments"][experiment]
        start = "jobs/s from "
        rates = {
            int(name.removeprefix(start)): value
            for name, value in found["facts"].items()
            if name.startswith(start) and not name.endswith("predictions/s")
        }
        axes.plot(list(rates), list(rates.values()), "o-", color=COLOURS["Sluice"], label="jobs drained")
        synchronous = found["figures"][0]["per_second"]
        axes.axhline(synchronous, color=COLOURS["floor"], linestyle=":", label="synchronous predictions")
        axes.set_title(f"Jobs per second, {database}")
        _count_axis(axes, list(rates), "jobs waiting")
        _from_zero(axes)
        axes.legend(frameon=False)


Draw = Callable[[Any, Any, Any], None]
PLOTS: Sequence[tuple[str, Draw, frozenset[str]]] = (
    ("connections", connections, frozenset({"throughput"})),
    ("batches", batches, frozenset({"throughput"})),
    ("crowds", crowds, frozenset({"versions", "clients"})),
    ("backlog", backlog, frozenset({"backlog", "backlog-postgresql"})),
)


def _complete(document: Document, needs: frozenset[str]) -> bool:
    return all(document["experiments"][name]["figures"] and document["experiments"][name]["facts"] for name in needs)


def _draw(document: Document, draw: Draw, path: Path) -> None:
    from matplotlib import pyplot

    with pyplot.rc_context(SETTINGS):
        figure, (left, right) = pyplot.subplots(1, 2, figsize=SIZE_INCHES, layout="constrained")
        draw(document, left, right)
        for axes in (left, right):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        figure.savefig(path, format="svg", metadata=UNDATED)
        pyplot.close(figure)


def _from_zero(axes: Axes) -> None:
    # Above the highest value there is room, or its mark would be cut.
    axes.set_ylim(0, 1.05 * axes.get_ylim()[1])


def _count_axis(axes: Axes, numbers: Sequence[int], label: str) -> None:
    axes.set_xscale("log")
    axes.set_xticks(list(numbers), [f"{number:,}" for number in numbers])
    axes.minorticks_off()
    axes.set_xlabel(label)
