"""Arrays of JSON numbers by simdjson: all numbers of an array in one typed buffer, nested lists flattened unseen."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import simdjson

from model_store.signature import Tensor

# A parser keeps the memory of its largest document for ever: about ten times the body.
KEPT_PARSER_BYTES = 1024 * 1024
# What simdjson raises; its own words lack the place, so whoever asked reads the text again another way and finds it.
ERRORS = (ValueError, KeyError, TypeError, RuntimeError)


@dataclass(frozen=True, slots=True)
class NumberBuffer:
    """Reads arrays of numbers as flat tensors of one dtype."""

    buffer: Literal["d", "i", "u"]
    read_as: np.dtype[np.generic]
    dtype: np.dtype[np.generic]

    @classmethod
    def of(cls, dtype: np.dtype[np.generic]) -> NumberBuffer | None:
        """The reader for this dtype; none where it is no number's."""
        match dtype.kind:
            case "f":
                return cls("d", np.dtype(np.float64), dtype)
            case "i":
                return cls("i", np.dtype(np.int64), dtype)
            case "u":
                return cls("u", np.dtype(np.uint64), dtype)
        return None

    def values(self, array: object) -> Tensor | None:
        """The numbers of a parsed array in order; None where it is none or an integer does not fit the dtype.

        Too large a float is infinity. Raises one of ERRORS where the array holds anything else.
        """
        if not isinstance(array, simdjson.Array):
            return None
        values = np.frombuffer(array.as_buffer(of_type=self.buffer), self.read_as)
        if self.dtype == self.read_as:
            return values
        if self.buffer == "d":
            with np.errstate(over="ignore"):
                return values.astype(self.dtype)
        narrow = values.astype(self.dtype)
        return narrow if np.array_equal(narrow, values) else None


class Parsers(threading.local):
    """One simdjson parser per thread: it must not be used again while somebody still looks at its last document."""

    def __init__(self) -> None:
        self.parser = simdjson.Parser()


PARSERS = Parsers()


def parsed(text: bytes) -> Any:  # noqa: ANN401 - simdjson carries no types
    """simdjson's view of a document, good until this thread's next call; raises one of ERRORS."""
    parser = PARSERS.parser if len(text) <= KEPT_PARSER_BYTES else simdjson.Parser()
    return parser.parse(text)
