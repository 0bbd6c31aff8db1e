"""Patterns of models' names: `team-a-*` stands for every name that begins with `team-a-`, `*` for any name."""

from __future__ import annotations

import functools
import re

from model_store.errors import NameInvalid
from model_store.registry import check_name

ANY = "*"
PATTERN = re.compile(r"[A-Za-z0-9*][A-Za-z0-9._*-]{0,127}")
PATTERNS_REMEMBERED = 4096


def is_pattern(model: str) -> bool:
    """Whether this stands for names rather than for itself: no name has an asterisk."""
    return ANY in model


def check_pattern(model: str) -> None:
    """Raises NameInvalid for what is neither a name nor a pattern of names."""
    if not is_pattern(model):
        check_name(model)
    elif not PATTERN.fullmatch(model):
        raise NameInvalid("not a pattern of models' names: letters, digits, '.', '_', '-', and '*' for any of them")


@functools.lru_cache(maxsize=PATTERNS_REMEMBERED)
def pattern_of(text: str) -> ModelPattern:
    """The pattern, taken apart once."""
    return ModelPattern(text)


class ModelPattern:
    """One pattern; looked for from left to right, so that no choice of name or pattern makes it slow.

    A regular expression with several asterisks tries all ways to divide a name that almost matches.
    """

    __slots__ = ("_first", "_last", "_middle")

    def __init__(self, text: str) -> None:
        self._first, *self._middle, self._last = text.split(ANY)

    def matches(self, name: str) -> bool:
        """Whether the whole name fits."""
        place, end = len(self._first), len(name) - len(self._last)
        if place > end or not name.startswith(self._first) or not name.endswith(self._last):
            return False
        for piece in self._middle:
            found = name.find(piece, place, end)
            if found < 0:
                return False
            place = found + len(piece)
        return True
