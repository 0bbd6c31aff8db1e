"""Texts of others as a terminal may show them: names, reasons and errors come from files and from whoever sent them."""

from __future__ import annotations

import re

import typer
from rich.markup import escape

# C0 and C1 but for the tab and the line's end, which move nothing but what follows; and what turns the direction of
# writing, which makes of one text another (UAX #9, UTR #36). A terminal takes the first two for orders.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str) -> str:
    """The text with a sign for each character that a terminal would obey, not show."""
    return _UNSEEN.sub(_named, text)


def cell(text: str) -> str:
    """The same for a table, where a text in brackets is none of rich's markup either."""
    return escape(visible(text))


def say(text: str, *, err: bool = False) -> None:
    """Print a line in which there are texts of others."""
    typer.echo(visible(text), err=err)


def _named(found: re.Match[str]) -> str:
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
