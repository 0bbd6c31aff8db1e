"""The stacked bars of a profile, as SVG: one bar for each process and number of connections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.plots import SETTINGS, UNDATED

if TYPE_CHECKING:
    from benchmarks.stages import Profile

WIDTH_INCHES = 9.5
ROW_INCHES = 0.55
# A stage that takes less than this share of the longest bar has no room for its name.
NARROW = 0.085
LEGEND_COLUMNS = 6
# As many as there may be stages, and light enough for black text.
COLOURS = (
    "#8ecae6", "#ffd166", "#a8dadc", "#f4a261", "#b7e4c7", "#e5989b", "#cdb4db", "#e9c46a", "#90be6d", "#f9c6c9",
    "#bde0fe", "#d4a373", "#caffbf", "#ffadad", "#d0d1ff", "#e2e2df", "#fdffb6", "#9bf6ff",
)  # fmt: skip


def draw(profiles: Sequence[Profile], path: Path) -> None:
    """Write the plot."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot
    from matplotlib.patches import Patch

    rows = [
        (f"{process}, {one.connections} connection{'s' if one.connections > 1 else ''}", stages)
        for one in profiles
        for process, stages in _by_process(one).items()
    ]
    longest = max(sum(size for _, size in stages) for _, stages in rows)
    names = list({name: None for _, stages in rows for name, _ in stages})
    with pyplot.rc_context(SETTINGS):
        figure, axes = pyplot.subplots(figsize=(WIDTH_INCHES, ROW_INCHES * len(rows) + 1.5), layout="constrained")
        for number, (_, stages) in enumerate(rows):
            left = 0.0
            for name, size in stages:
                colour = COLOURS[names.index(name) % len(COLOURS)]
                axes.barh(number, size, left=left, color=colour, edgecolor="white", linewidth=0.7)
                if size > NARROW * longest:
                    text = f"{name}\n{size:.0f}"
                    axes.text(left + size / 2, number, text, ha="center", va="center", fontsize=6.5, color="#202020")
                left += size
            axes.text(left, number, f" {left:.0f}", ha="left", va="center")
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.set_xlim(right=longest * 1.08)
        axes.set_xlabel("microseconds of processor time for one prediction")
        axes.spines[["top", "right"]].set_visible(False)
        patches = [Patch(color=COLOURS[n % len(COLOURS)], label=name) for n, name in enumerate(names)]
        figure.legend(handles=patches, loc="outside lower center", ncols=LEGEND_COLUMNS, frameon=False, fontsize=7)
        figure.savefig(path, format="svg", metadata=UNDATED)
        pyplot.close(figure)


def _by_process(one: Profile) -> dict[str, list[tuple[str, float]]]:
    found: dict[str, list[tuple[str, float]]] = {}
    for stage in one.stages:
        found.setdefault(stage.process, []).append((stage.name, stage.microseconds))
    return found
