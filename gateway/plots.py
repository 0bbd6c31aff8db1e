"""Plots as SVG elements: no scripts, no styles of their own, and a title for each mark that readers can point at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gateway.markup import Markup, element

WIDTH = 760
BAR, GAP, GROUP_GAP = 16, 4, 14
TICK_HEIGHT = 20
NAME_WIDTH, VALUE_WIDTH = 190, 80
INK, PALE = "#1f2937", "#6b7280"
# Told apart by people who see no red and green, and in print (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
CELL, LABEL_WIDTH = 34, 130
MOST_LABELLED = 20
TABLE_SIDE = 600


def bars(values: Mapping[str, Mapping[str, float]], unit: str, title: str) -> Markup:
    """Horizontal bars on a logarithmic scale, which begins at a power of ten: `values` by the group's name and then
    the bar's, none negative. Each group has a colour of its own."""
    scale = _Decades([value for group in values.values() for value in group.values()], WIDTH - NAME_WIDTH - VALUE_WIDTH)
    drawn: list[Markup] = []
    top = 4.0 + TICK_HEIGHT
    for number, (group, found) in enumerate(values.items()):
        drawn.append(_text(group, 0, top + BAR - 4, font_weight="bold"))
        for name, value in found.items():
            width = scale.width(value)
            hint = element("title", f"{group}, {name}: {value:.4g} {unit}")
            drawn += [
                _text(name, NAME_WIDTH - 8, top + BAR - 4, text_anchor="end", fill=PALE),
                element(
                    "rect", hint, x=NAME_WIDTH, y=f"{top:.1f}", width=f"{width:.1f}", height=BAR, rx=2,
                    fill=COLOURS[number % len(COLOURS)],
                ),
                _text(f"{value:.3g} {unit}", NAME_WIDTH + width + 6, top + BAR - 4),
            ]  # fmt: skip
            top += BAR + GAP
        top += GROUP_GAP
    return _drawing(title, WIDTH, top, [*_ticks(scale, unit, top - GROUP_GAP), *drawn])


class _Decades:
    """A logarithmic scale over whole powers of ten, `room` pixels wide."""

    def __init__(self, values: Sequence[float], room: float) -> None:
        above = [value for value in values if value > 0.0] or [1.0]
        self.first = math.floor(math.log10(min(above)))
        self.last = max(math.ceil(math.log10(max(above))), self.first + 1)
        self._room = room

    def width(self, value: float) -> float:
        """Of a bar, in pixels; one at least."""
        if value <= 0.0:
            return 1.0
        return max(1.0, self._room * (math.log10(value) - self.first) / (self.last - self.first))


def _ticks(scale: _Decades, unit: str, bottom: float) -> list[Markup]:
    """A line at each power of ten, and its number."""
    drawn: list[Markup] = []
    for power in range(scale.first, scale.last + 1):
        left = NAME_WIDTH + (scale.width(10.0**power) if power > scale.first else 0.0)
        line = element(
            "rect", x=f"{left:.1f}", y=TICK_HEIGHT, width=1, height=f"{bottom - TICK_HEIGHT:.1f}", fill=PALE,
            fill_opacity="0.3",
        )  # fmt: skip
        drawn += [line, _text(f"{10.0**power:g} {unit}", left, TICK_HEIGHT - 6, text_anchor="middle", fill=PALE)]
    return drawn


def table_of_counts(counts: Sequence[Sequence[int]], names: Sequence[str], title: str) -> Markup:
    """A square of cells: row i and column j is how often i was taken for j, darker the larger its share of the row."""
    size = len(counts)
    cell = CELL if size <= MOST_LABELLED else max(4, TABLE_SIDE // size)
    drawn = [
        _text("is, downwards; was taken for, to the right", 0, 14, fill=PALE),
    ]
    for row, line in enumerate(counts):
        whole = sum(line) or 1
        top = 40 + row * cell
        if size <= MOST_LABELLED:
            drawn.append(_text(_short(names[row]), LABEL_WIDTH - 8, top + cell / 2 + 4, text_anchor="end"))
            drawn.append(
                _text(_short(names[row], 5), LABEL_WIDTH + row * cell + cell / 2, 34, text_anchor="middle", fill=PALE)
            )
        for column, count in enumerate(line):
            left = LABEL_WIDTH + column * cell
            share = count / whole
            hint = element("title", f"{names[row]} taken for {names[column]}: {count} ({share:.1%})")
            drawn.append(
                element(
                    "rect", hint, x=left, y=top, width=cell - 1, height=cell - 1,
                    fill=COLOURS[0] if row == column else COLOURS[5], fill_opacity=f"{0.06 + 0.94 * share:.3f}",
                )
            )  # fmt: skip
            if size <= MOST_LABELLED and count:
                colour = "#ffffff" if share > 0.5 else INK
                drawn.append(_text(str(count), left + cell / 2, top + cell / 2 + 4, text_anchor="middle", fill=colour))
    return _drawing(title, LABEL_WIDTH + size * cell + 4, 44 + size * cell, drawn)


def _drawing(title: str, width: float, height: float, drawn: Sequence[Markup]) -> Markup:
    return element(
        "svg", element("title", title), *drawn, xmlns="http://www.w3.org/2000/svg", role="img", width=f"{width:.0f}",
        height=f"{height:.0f}", viewBox=f"0 0 {width:.0f} {height:.0f}", font_family="sans-serif", font_size=12,
    )  # fmt: skip


def _text(said: str, x: float, y: float, **attributes: object) -> Markup:
    return element("text", said, x=f"{x:.1f}", y=f"{y:.1f}", **{"fill": INK, **attributes})


def _short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
