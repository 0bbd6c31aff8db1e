"""Lines of JSON's numbers as one tensor, a slice at a time: a parser that is kept is faster than one for all of them.

Of a chunk of digits, parsing took two thirds of the time: simdjson takes ten times as much memory as its text, and a
parser for a large one has to get it from the system first.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from model_store.signature import Tensor
from workers.protocols.number_buffer import ERRORS, KEPT_PARSER_BYTES, NumberBuffer, parsed

SLICE_BYTES = KEPT_PARSER_BYTES * 7 // 8


def numbers_of(text: bytes, numbers: NumberBuffer) -> Tensor | None:
    """All numbers of lines that are JSON values or lists of them without their brackets; None where one is no number.

    The text has no line feed at its end.
    """
    try:
        found = [numbers.values(parsed(b"[" + lines.replace(b"\n", b",") + b"]")) for lines in slices(text)]
    except ERRORS:
        return None
    whole = [values for values in found if values is not None]
    return np.concatenate(whole) if whole and len(whole) == len(found) else None


def slices(text: bytes) -> Iterator[bytes]:
    """Runs of whole lines, without the line feeds at their ends."""
    start = 0
    while start <= len(text):
        stop = len(text)
        if stop - start > SLICE_BYTES:
            stop = text.rfind(b"\n", start, start + SLICE_BYTES)
            stop = stop if stop >= start else text.find(b"\n", start)
            stop = stop if stop >= 0 else len(text)
        yield text[start:stop]
        start = stop + 1
