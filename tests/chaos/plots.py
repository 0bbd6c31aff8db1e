"""The plots of a run, as SVG: throughput and latency over time, each fault marked."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from benchmarks.plots import SETTINGS, UNDATED

SIZE_INCHES = (11.0, 5.2)
ACCEPTED, ENDED, SLOWEST, BROKEN = "#a0a0a0", "#1f6f8b", "#c2703d", "#c23d3d"
LEAST_SECONDS = 0.001


def draw(document: dict[str, Any], folder: Path) -> list[str]:
    """One file for each trial; returns their names."""
    import matplotlib as mpl

    mpl.use("Agg")
    names = []
    for number, trial in enumerate(document["trials"], 1):
        names.append(f"trial-{number}.svg")
        _draw(trial, folder / names[-1])
    return names


def _draw(trial: dict[str, Any], path: Path) -> None:
    from matplotlib import pyplot

    points = trial["points"]
    begin = points["at"][0] if points["at"] else 0.0
    minutes = [(at - begin) / 60 for at in points["at"]]
    with pyplot.rc_context(SETTINGS):
        figure, (above, below) = pyplot.subplots(2, 1, figsize=SIZE_INCHES, sharex=True, layout="constrained")
        above.plot(minutes, points["accepted"], color=ACCEPTED, linewidth=0.8, label="accepted")
        above.plot(minutes, points["ended"], color=ENDED, linewidth=1.0, label="ended")
        above.set_title(f"Jobs per second, {trial['on']}")
        below.plot(minutes, _shown(points["p50"]), color=ENDED, label="median")
        below.plot(minutes, _shown(points["slowest"]), ":", color=SLOWEST, label="slowest")
        below.set_title("Seconds from the submit to the end, by when jobs ended")
        below.set_yscale("log")
        below.set_xlabel("minutes")
        for number, fault in enumerate(trial["recoveries"], 1):
            first, last = (fault["begin"] - begin) / 60, (fault["end"] - begin) / 60
            for axes in (above, below):
                axes.axvspan(first, max(last, first + 0.01), color=BROKEN, alpha=0.18, linewidth=0)
            above.annotate(f"{number}", (first, 1.0), xycoords=("data", "axes fraction"), fontsize=7, color=BROKEN)
        for axes in (above, below):
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.legend(frameon=False, loc="upper left")
        figure.savefig(path, format="svg", metadata=UNDATED)
        pyplot.close(figure)


def _shown(seconds: list[float]) -> list[float]:
    """With gaps where nothing ended."""
    return [max(one, LEAST_SECONDS) if one else math.nan for one in seconds]
