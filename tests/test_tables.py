"""Tables of the command line: nothing in them is cut off, in a narrow terminal or without one."""

from __future__ import annotations

import json
import re

import pytest
from rich.table import Table

from sluice.tables import print_object, print_rows, print_table

ID, ADDRESS = "Zk0o3rVxQ1uYt5pWc8sLd2Ea", "https://hooks.example.com/" + "a" * 60


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    table = Table("id", "address", "state")
    table.add_row(ID, ADDRESS, "enabled")
    print_table(table, "id")
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)


def test_without_a_terminal_a_row_is_a_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert [line.split() for line in shown(capsys).splitlines()] == [
        ["id", "address", "state"],
        [ID, ADDRESS, "enabled"],
    ]


def test_one_thing_is_told_member_by_member_and_what_is_long_is_left_to_programs(capsys: pytest.CaptureFixture[str]):
    print_object({"state": "[queued]", "error": None, "created_at": "now", "outputs": [0.5] * 1000})

    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["state", "created", "outputs"]
    assert "[queued]" in lines[0]
    assert lines[2].endswith("(--json has all of it)")


def test_rows_are_objects_for_programs(capsys: pytest.CaptureFixture[str]):
    print_rows(("key", "signs from"), [("a", "[now]")], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"key": "a", "signs_from": "[now]"}]

    print_rows(("key", "signs from"), [("a", "[now]")], as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split() == ["a", "[now]"]


def test_in_a_narrow_terminal_ids_stay_whole_and_addresses_are_folded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "50", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    text = shown(capsys)
    assert ID in text
    assert "…" not in text
    folded = "".join(line.split("│")[2].strip() for line in text.splitlines() if line.count("│") == 4)
    assert folded == ADDRESS


def test_a_terminal_breaks_lines_between_words(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "40", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    table = Table("state", "why")
    table.add_row("AVAILABLE", "it is slower than the variant that serves now, and so on and so forth")
    print_table(table)
    text = capsys.readouterr().out
    assert "AVAILABLE" in text
    assert {"slower", "variant", "forth"} <= set(re.sub(r"\x1b\[[0-9;]*m|[│┃]", " ", text).split())
