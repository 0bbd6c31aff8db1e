"""Tables on standard output: what is in them is whole, since ids and addresses are there to be copied."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sluice.shown_texts import cell

# As wide as any row: who reads a table from a pipe or a file wants its rows on one line each.
UNBOUNDED = 10_000
# What is broken into lines rather than widening a terminal's table: longer ids than these do not exist.
ID_CHARACTERS = 64
# Longer words are addresses and the like, which may be broken; a border and two spaces come with each column.
WORD_CHARACTERS = 24
BORDER_CHARACTERS = 3
# What is longer in an object's table is for programs, which ask for JSON.
VALUE_CHARACTERS = 300


def print_table(table: Table, *ids: str) -> None:
    """Print a table; the columns with these headers stay on one line, the others are folded where they are too wide.

    Where nobody looks at a terminal, it is plain text: a line for each row, its columns under each other.
    """
    console = Console()
    if not console.is_terminal:
        _print_plainly(table, console)
        return
    for column in table.columns:
        column.overflow = "fold"
        if str(column.header) in ids:
            longest = max((cell_len(_shown(cell)) for cell in column.cells), default=0)
            column.min_width = min(longest, ID_CHARACTERS)
    _keep_words(table, console.width)
    # Where the ids alone are wider than the terminal, it is the terminal that breaks the lines.
    console.print(table, crop=False)


def print_rows(heads: Sequence[str], rows: Iterable[Sequence[str]], *ids: str, as_json: bool) -> None:
    """Print rows as a table, or as JSON with a member for each head."""
    if as_json:
        names = [head.replace(" ", "_") for head in heads]
        typer.echo(json.dumps([dict(zip(names, one, strict=True)) for one in rows]))
        return
    table = Table(*heads)
    for one in rows:
        table.add_row(*map(cell, one))
    print_table(table, *ids)


def print_object(document: Mapping[str, object]) -> None:
    """Print what is said of one thing, a line for each of its members; those without a value are left out."""
    table = Table("", "", show_header=False)
    for name, value in document.items():
        if value is None:
            continue
        shown = value if isinstance(value, str) else json.dumps(value)
        if len(shown) > VALUE_CHARACTERS:
            shown = f"{shown[:VALUE_CHARACTERS]}… (--json has all of it)"
        table.add_row(cell(name.replace("_", " ")), cell(shown))
    print_table(table)


def _print_plainly(table: Table, console: Console) -> None:
    console.width = UNBOUNDED
    table.box, table.pad_edge, table.padding = None, False, (0, 2, 0, 0)
    with console.capture() as captured:
        console.print(table, crop=False)
    for line in captured.get().splitlines():
        typer.echo(line.rstrip())


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
