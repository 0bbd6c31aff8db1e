"""Predictions and explanations for people: a line or a few for each instance."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from math import prod
from typing import TypeAlias

from rich.table import Table

from sluice.answers import Json
from sluice.version_table import row

Place: TypeAlias = tuple[int, ...]
# The first and the last place of each axis.
Box: TypeAlias = tuple[tuple[int, int], ...]
PARTS_SHOWN = 10
# With more values than this, the gateway takes several away at once: patches of images, stretches of series.
ALONE = 256


def classes(predictions: Json) -> Table | None:
    """The best classes of each instance; None where the answer has other predictions."""
    if not _are_classes(predictions):
        return None
    named = any("class" in one for instance in predictions for one in instance)
    table = Table("instance", "index", *(["class"] if named else []), "score")
    for number, instance in enumerate(predictions):
        for place, one in enumerate(instance):
            name = [str(one.get("class", ""))] if named else []
            row(table, str(number) if place == 0 else "", str(one["index"]), *name, f"{one['score']:.6g}")
    return table


def lines(answer: Json) -> Iterator[str]:
    """A line of JSON for each instance, or for each output of an answer by outputs."""
    if "predictions" in answer:
        yield from map(json.dumps, answer["predictions"])
        return
    outputs = answer.get("outputs")
    if isinstance(outputs, dict):
        yield from (f"{name}  {json.dumps(value)}" for name, value in outputs.items())
    else:
        yield from map(json.dumps, outputs if isinstance(outputs, list) else [answer])


def explained(answer: Json) -> Table:
    """Of each instance the class that was explained, and the parts that its score owes most to, or is lowered by."""
    table = Table("instance", "class", "score", "input", "part", "attribution")
    for number, one in enumerate(answer["explanations"]):
        name = one.get("class_name", one.get("class"))
        first = [str(number), str(name), f"{one['score']:.6g}"]
        for at, (place, text, value) in enumerate(_largest(one)):
            row(table, *(first if at == 0 else ["", "", ""]), place, text, f"{value:+.4g}")
    return table


def _are_classes(predictions: Json) -> bool:
    instances = predictions if isinstance(predictions, list) else []
    return bool(instances) and all(
        isinstance(instance, list) and instance and all(isinstance(one, dict) and "score" in one for one in instance)
        for instance in instances
    )


def _largest(explanation: Json) -> list[tuple[str, str, float]]:
    words = explanation.get("words", {})
    found = [
        (name, _word(words.get(name), place), value)
        for name, attributions in explanation["attributions"].items()
        for place, value in _parts(list(_numbers(attributions)))
    ]
    return sorted(found, key=lambda part: -abs(part[2]))[:PARTS_SHOWN]


def _parts(values: list[tuple[Place, float]]) -> list[tuple[Box, float]]:
    """The values' places; where there are many, those with one value that fill a box are one part."""
    alone = [(tuple((at, at) for at in place), value) for place, value in values]
    if len(values) <= ALONE:
        return alone
    together: dict[float, list[Place]] = {}
    for place, value in values:
        together.setdefault(value, []).append(place)
    boxes = {
        value: tuple((min(axis), max(axis)) for axis in zip(*places, strict=True)) for value, places in together.items()
    }
    whole = {
        value for value, box in boxes.items() if prod(last - first + 1 for first, last in box) == len(together[value])
    }
    apart = [(box, value) for box, value in alone if value not in whole]
    return [(boxes[value], value) for value in whole] + apart


def _word(words: Json, box: Box) -> str:
    """The part itself where it is a word, else where it is."""
    for first, _ in box:
        words = words[first] if isinstance(words, list) and first < len(words) else None
    shown = (str(first) if first == last else f"{first}-{last}" for first, last in box)
    return words if isinstance(words, str) else ", ".join(shown)


def _numbers(value: Json, place: Place = ()) -> Iterable[tuple[Place, float]]:
    if isinstance(value, list):
        for at, inner in enumerate(value):
            yield from _numbers(inner, (*place, at))
    elif isinstance(value, int | float):
        yield place, float(value)
