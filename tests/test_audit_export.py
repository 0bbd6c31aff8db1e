"""Exported audit logs: they verify by themselves, and any change to a file is found."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auth.audit_chain import Link
from auth.audit_export import Part, lines, part_of, verify_file
from auth.audit_verification import Findings, Trust
from model_store.database import Sessions, transaction
from tests.audit_kit import audit_database, new_key, sqlite_url, write

KEY, OTHER_KEY = new_key(), new_key()
TRUST = Trust(frozenset({KEY.public.kid}))
ENTRIES = 6


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    for sessions in audit_database(sqlite_url(tmp_path_factory.mktemp("audit"))):
        write(sessions, ENTRIES, KEY)
        yield sessions


@pytest.fixture(scope="module")
def exported(log: Sessions) -> list[str]:
    with transaction(log, write=False) as session:
        return list(lines(session, part_of(session, None, None), KEY))


def verified(file: list[str], trust: Trust = TRUST) -> Findings:
    return verify_file(file, trust, lambda _: None)


def test_an_export_verifies_by_itself(exported: list[str]):
    found = verified([f"{line}\n" for line in exported])

    assert (found.faults, found.entries, found.end.number, found.confirmed) == ([], ENTRIES, ENTRIES, ENTRIES)
    assert [json.loads(line)["kind"] for line in exported] == ["start", *["entry"] * ENTRIES, "head"]
    assert {"hash", "number", "identity", "act", "outcome"} <= json.loads(exported[1]).keys()


def test_an_export_of_some_days_is_a_piece_of_the_chain(log: Sessions):
    with transaction(log, write=False) as session:
        whole = part_of(session, None, None)
        assert part_of(session, 0, 2**52) == whole
        assert part_of(session, 2**52, None).entries == 0
        assert part_of(session, None, 0).entries == 0
        second, fourth = (json.loads(list(lines(session, whole, KEY))[n]) for n in (2, 4))
        part = Part(Link(2, second["hash"]), Link(4, fourth["hash"]))
        piece = list(lines(session, part, KEY))

    found = verified(piece)
    assert (found.faults, found.before.number, found.end.number) == ([], 2, 4)


def test_without_a_known_key_nothing_is_confirmed_and_a_foreign_one_is_a_fault(log: Sessions, exported: list[str]):
    with transaction(log, write=False) as session:
        forged = list(lines(session, part_of(session, None, None), OTHER_KEY))

    assert (verified(exported, Trust()).faults, verified(exported, Trust()).confirmed) == ([], None)
    assert OTHER_KEY.public.kid in verified(forged).faults[0]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_changed_character_is_found(exported: list[str], data: st.DataObject):
    place = data.draw(st.integers(0, len(exported) - 1))
    column = data.draw(st.integers(0, len(exported[place]) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda found: found != exported[place][column]))
    changed = [*exported]
    changed[place] = exported[place][:column] + other + exported[place][column + 1 :]

    assert verified(changed).faults


@pytest.mark.parametrize(
    ("written", "instead"),
    [('{"act"', '{ "act"'), ('{"act"', '{"name":"nobody","act"'), ('"version":1', '"version":1.0')],
)
def test_a_line_that_only_reads_the_same_is_found(exported: list[str], written: str, instead: str):
    changed = [exported[0], exported[1].replace(written, instead), *exported[2:]]
    assert changed != exported

    assert "line 2 is not as it was written" in verified(changed).faults


@pytest.mark.parametrize("place", range(ENTRIES + 2))
def test_any_removed_line_is_found(exported: list[str], place: int):
    assert verified([line for number, line in enumerate(exported) if number != place]).faults


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, ENTRIES + 1), min_size=2, max_size=2, unique=True))
def test_any_two_lines_that_changed_places_are_found(exported: list[str], places: list[int]):
    changed, (one, other) = [*exported], places
    changed[one], changed[other] = changed[other], changed[one]

    assert verified(changed).faults


@settings(max_examples=40, deadline=None)
@given(
    place=st.integers(0, ENTRIES + 2),
    line=st.one_of(
        st.integers(0, ENTRIES + 1), st.sampled_from(["", "{}", "[" * 5000, '{"kind":"entry"}', "1", "NaN"])
    ),
)
def test_any_inserted_line_is_found(exported: list[str], place: int, line: int | str):
    inserted = exported[line] if isinstance(line, int) else line

    assert verified([*exported[:place], inserted, *exported[place:]]).faults


@pytest.mark.parametrize("kept", range(ENTRIES + 2))
def test_any_cut_is_found(exported: list[str], kept: int):
    assert any("end with a signed head" in fault for fault in verified(exported[:kept]).faults)


def test_the_text_says_which_entry_was_changed(exported: list[str]):
    changed = [line.replace('"name":"client 3"', '"name":"client 4"') for line in exported]

    assert verified(changed).faults == ["entry 3 is not what was sealed there, or does not follow the one before it"]
