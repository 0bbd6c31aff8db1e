"""CSV to a table: a line of names, then a line for each instance, as `pandas.DataFrame.to_csv` writes them.

Stricter than pandas: lines of another length, unfinished quotes and a name given twice are refused. The column without
a name that `to_csv` puts first is the index, and dropped.
"""

from __future__ import annotations

import contextlib
import csv
import io
import math
from collections.abc import Sequence
from functools import partial

import numpy as np

from model_store.signature import STRING, TensorSpec
from workers.protocols.errors import invalid
from workers.protocols.mlflow_tables import Rows, places_of

PLACE = "csv"
# What pandas takes for a missing value (pandas/_libs/parsers.pyx, STR_NA_VALUES).
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
     "NULL", "NaN", "None", "n/a", "nan", "null"}
)  # fmt: skip
TRUTHS = {"True": True, "TRUE": True, "true": True, "False": False, "FALSE": False, "false": False}


def read_csv(text: bytes, most_rows: int) -> Rows:
    """The table in a body; raises InputInvalid with the line where it is none, or where there are more rows.

    A cell has at most 131,072 characters, which is the csv module's own bound.
    """
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise invalid(f"CSV: Invalid UTF-8 at offset: {error.start}") from None
    reader = csv.reader(io.StringIO(decoded, newline=""), strict=True)
    rows: list[list[str]] = []
    try:
        names = next(filter(None, reader), None)
        if names is None:
            raise invalid("CSV: the body is empty; the first line has the columns' names")
        for row in reader:
            if row and len(row) != len(names):
                raise invalid(f"CSV: line {reader.line_num} has {len(row)} cells, but there are {len(names)} columns")
            if row:
                rows.append(row)
            if len(rows) > most_rows:
                # To read on takes 50 times the memory of the body where rows are short.
                raise invalid(f"more than {most_rows} instances in one request, but this version takes at most that")
    except csv.Error as error:
        raise invalid(f"CSV: line {reader.line_num}: {error}") from None
    if not rows:
        raise invalid("CSV: there is no line behind that with the columns' names")
    if not names[0] and len(names) > 1:
        names, rows = names[1:], [row[1:] for row in rows]
    # Names may have what numbers may not.
    plain = text.isascii() and text.find(b"_", max(text.find(b"\n"), 0)) < 0
    return Rows(PLACE, places_of(names, PLACE), rows, partial(typed, plain=plain))


def typed(cells: Sequence[str], spec: TensorSpec, *, plain: bool) -> list[object]:
    """Cells as values that an input of this dtype takes; one that is none stays a text, to be complained of.

    `plain` says that no cell holds what only Python takes for a part of a number: `1_000`, and digits of any script.
    """
    if spec.dtype == STRING:
        return list(cells)
    kind = np.dtype(spec.dtype).kind
    if kind == "b":
        return [TRUTHS.get(text, text) for text in cells]
    if plain:
        # To look at each of them first takes four times as long.
        with contextlib.suppress(ValueError):
            return list(map(float if kind == "f" else int, cells))
    return [text if "_" in text or not text.isascii() else _number(text, kind) for text in cells]


def _number(text: str, kind: str) -> object:
    if kind == "f" and text in MISSING:
        return math.nan
    with contextlib.suppress(ValueError):
        return float(text) if kind == "f" else int(text)
    with contextlib.suppress(ValueError):
        return float(text)
    return text
