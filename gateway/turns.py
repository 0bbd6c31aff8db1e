"""Turns: what one turn of the event loop brought for a lane, and the entries that it was written as."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from workers.lanes import BUNDLE_BYTES, BUNDLE_PREDICTIONS, Lane, Prediction


@dataclass(slots=True)
class LaidOut:
    """One entry as it was written: its id and the last number in it."""

    id: bytes
    last: int


@dataclass(slots=True)
class Turn:
    """The predictions that arrive for a lane until they are sent, and the entries that hold them afterwards."""

    lane: Lane
    predictions: list[Prediction] = field(default_factory=list)
    entries: list[LaidOut] = field(default_factory=list)

    def entry_of(self, number: int) -> LaidOut | None:
        """Where a prediction lies; None where its entry was never written. Numbers rise from entry to entry."""
        return next((entry for entry in self.entries if number <= entry.last), None)


def bundles(predictions: Sequence[Prediction]) -> list[list[Prediction]]:
    """Split a turn's predictions into entries of at most 64 predictions and 1 MiB, or one larger prediction."""
    if len(predictions) == 1:
        return [list(predictions)]
    entries: list[list[Prediction]] = []
    size = BUNDLE_BYTES + 1
    for prediction in predictions:
        if size + len(prediction[1].data) > BUNDLE_BYTES or len(entries[-1]) >= BUNDLE_PREDICTIONS:
            entries.append([])
            size = 0
        entries[-1].append(prediction)
        size += len(prediction[1].data)
    return entries
