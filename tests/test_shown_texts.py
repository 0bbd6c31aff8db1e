"""What others wrote, in a terminal: orders to it are shown, not obeyed, and brackets are no markup."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from sluice.answers import Refused
from sluice.cli import _fail
from sluice.shown_texts import visible
from sluice.tables import print_object, print_rows
from sluice.version_table import row

# Clears the screen, names the window, goes to the line's beginning; C1; turns the direction of writing.
HOSTILE = "a\x1b[2J\x1b]0;b\x07\rc\x9b31m\u202ed[red]e[/]"
SEEN = "a\\x1b[2J\\x1b]0;b\\x07\\x0dc\\x9b31m\\u202ed[red]e[/]"


def test_only_what_a_terminal_obeys_is_replaced():
    assert visible(HOSTILE) == SEEN
    assert visible("Zürich\t數字 🙂\nΔ") == "Zürich\t數字 🙂\nΔ"


def test_tables_and_errors_show_what_others_wrote(capsys: pytest.CaptureFixture[str]):
    print_rows(("name",), [(HOSTILE,)], as_json=False)
    print_object({"description": HOSTILE})
    with pytest.raises(SystemExit):
        _fail(Refused(400, None, HOSTILE))
    said = capsys.readouterr()
    assert said.out.count(SEEN) == 2
    assert said.err == f"Error: {SEEN}\n"


def test_a_row_in_a_terminal_holds_no_orders_but_those_of_its_frame():
    written = io.StringIO()
    table = Table(show_header=False, box=None)
    row(table, HOSTILE)
    Console(file=written, force_terminal=True, width=200, color_system=None).print(table)
    assert written.getvalue().strip() == SEEN
