"""The tables of cases and of known failures name tests and faults that exist, each row at least one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tests.chaos.fault import Fault
from tests.chaos.matrix import all_faults, shuffled

ROOT = Path(__file__).parents[2]
ROWS = {
    "chaos.md": [f"C{number:02}" for number in range(1, 26)],
    "operations.md": [f"R{number}" for number in range(1, 27)],
}


def kinds(of: type[Fault] = Fault) -> Iterator[type[Fault]]:
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


def rows(page: str) -> dict[str, str]:
    """The last cell of each numbered row of a page."""
    text = (ROOT / "docs" / page).read_text()
    found = re.findall(r"^\| ([CR]\d+) \|.*\| ([^|]+) \|$", text, re.MULTILINE)
    assert len(found) == len(dict(found)), "a row is there twice"
    return dict(found)


@pytest.mark.parametrize("page", ROWS)
def test_every_row_names_what_shows_it(page: str) -> None:
    assert list(rows(page)) == ROWS[page]
    code = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    known = set(re.findall(r"^def (test_\w+)", code, re.MULTILINE)) | {kind.__name__ for kind in kinds()}
    for row, shown in rows(page).items():
        named = re.findall(r"`(\w+)`", shown)
        assert named, f"{row} names nothing"
        assert set(named) <= known, f"{row} names what there is not: {set(named) - known}"


def test_the_long_run_has_every_fault() -> None:
    long = {type(fault).__name__ for fault in all_faults(long=True)}
    named = {name for page in ROWS for shown in rows(page).values() for name in re.findall(r"`([A-Z]\w+)`", shown)}
    assert named <= long


def test_where_the_time_is_short_what_did_not_come_on_one_installation_comes_on_the_next() -> None:
    faults, brought = all_faults(long=False), Counter[str]()
    part = -(-len(faults) // 4)
    came = [fault.name for seed in range(4) for fault in islice(shuffled(faults, seed, brought), part)]
    assert set(came) == {fault.name for fault in faults}


def test_a_seed_gives_the_same_order_again() -> None:
    first, again, other = (
        [fault.name for fault in islice(shuffled(all_faults(long=False), seed, Counter()), 200)] for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_faults_say_their_case_and_how_long_they_last() -> None:
    for fault in all_faults(long=True):
        assert re.fullmatch(r"C\d\d|R19", fault.case)
        assert fault.name
        assert not fault.seconds or f"{fault.seconds:g} s" in fault.name
