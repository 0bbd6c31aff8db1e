"""The last results in the documents: `python -m benchmarks --publish` writes them between two markers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from benchmarks.failures import BenchmarkFailed
from benchmarks.machine import ROOT
from benchmarks.report import RESULTS, figures_table, summary
from benchmarks.targets import TARGETS, Document

PAGE = ROOT / "docs" / "benchmark.md"
IMAGES = ROOT / "docs" / "images"
BEGIN = "<!-- results: begin -->"
END = "<!-- results: end -->"
CAPTIONS = {
    "connections": "Throughput and latency over connections",
    "batches": "Batch size and processor time over load",
    "crowds": "Throughput over versions and clients",
    "backlog": "Throughput over the length of the backlog",
}


def publish(results: Path = RESULTS, page: Path = PAGE, images: Path = IMAGES) -> Path:
    """Write the newest whole run into the page and its plots beside it; returns the page. Raises BenchmarkFailed."""
    newest = max(filter(_is_whole, results.glob("*Z.json")), default=None)
    if newest is None:
        raise BenchmarkFailed(f"there is no whole run in {results}: run the benchmark first")
    images.mkdir(exist_ok=True)
    drawn = []
    for name, caption in CAPTIONS.items():
        plot = newest.with_suffix("") / f"{name}.svg"
        if plot.exists():
            shutil.copyfile(plot, images / f"benchmark-{name}.svg")
            drawn.append(f"![{caption}]({images.name}/benchmark-{name}.svg)")
    document = json.loads(newest.read_text())
    page.write_text(with_results(page.read_text(), document, drawn))
    return page


def _is_whole(file: Path) -> bool:
    """Whether a run made all experiments: figures of several runs must not stand in one table."""
    made = json.loads(file.read_text()).get("experiments", {})
    return all(target.experiment in made for target in TARGETS)


def with_results(text: str, document: Document, images: list[str]) -> str:
    """The page's text with these results between its markers; raises BenchmarkFailed where it has none."""
    lines = [*summary(document), ""]
    throughput = document["experiments"].get("throughput")
    if throughput is not None:
        lines += [*figures_table(throughput), ""]
    for image in images:
        lines += [image, ""]
    return between_markers(text, lines)


def between_markers(text: str, lines: Sequence[str]) -> str:
    """The text with these lines between its markers; raises BenchmarkFailed where it has none."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise BenchmarkFailed(f"the page has no {BEGIN} and {END}")
    return "\n".join([f"{before}{BEGIN}", *lines, f"{END}{after}"])
