"""Tables on standard output: what is in them is whole, since ids and addresses are there to be copied."""

from __future__ import annotations

from collections.abc import Iterable

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

# As wide as any row: who reads a table from a pipe or a file wants its rows on one line each.
UNBOUNDED = 10_000
# What is broken into lines rather than widening a terminal's table: longer ids than these do not exist.
ID_CHARACTERS = 64
# Longer words are addresses and the like, which may be broken; a border and two spaces come with each column.
WORD_CHARACTERS = 24
BORDER_CHARACTERS = 3


def print_table(table: Table, *ids: str) -> None:
    """Print a table; the columns with these headers stay on one line, the others are folded where they are too wide."""
    console = Console()
    if not console.is_terminal:
        console.width = UNBOUNDED
    for column in table.columns:
        column.overflow = "fold"
        if str(column.header) in ids:
            longest = max((cell_len(_shown(cell)) for cell in column.cells), default=0)
            column.min_width = min(longest, ID_CHARACTERS)
    if console.is_terminal:
        _keep_words(table, console.width)
    # Where the ids alone are wider than the terminal, it is the terminal that breaks the lines.
    console.print(table, crop=False)


def _keep_words(table: Table, width: int) -> None:
    """Gives each column room for its longest word, where the terminal has that much."""
    wanted = [column.min_width or _longest_word([column.header, *column.cells]) for column in table.columns]
    if sum(wanted) + BORDER_CHARACTERS * len(wanted) + 1 > width:
        return
    for column, least in zip(table.columns, wanted, strict=True):
        column.min_width = least


def _longest_word(cells: Iterable[object]) -> int:
    lengths = (cell_len(word) for cell in cells for word in _shown(cell).split())
    return min(max(lengths, default=0), WORD_CHARACTERS)


def _shown(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain
