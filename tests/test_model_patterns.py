"""Patterns of models' names match as anybody would write them as regular expressions, whatever the name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auth.model_patterns import ModelPattern, check_pattern, is_pattern
from model_store.errors import NameInvalid

PATTERNS = st.text("ab-*", min_size=1, max_size=12).filter(lambda text: "*" in text)
NAMES = st.text("ab-", max_size=14)


@given(PATTERNS, NAMES)
def test_a_pattern_matches_as_the_regular_expression_that_it_stands_for(pattern: str, name: str):
    meant = re.compile(".*".join(re.escape(piece) for piece in pattern.split("*")))
    assert ModelPattern(pattern).matches(name) == bool(meant.fullmatch(name))


@given(st.lists(NAMES, min_size=2, max_size=5), st.lists(NAMES, min_size=4, max_size=4))
def test_whatever_an_asterisk_is_replaced_by_matches(pieces: list[str], fillings: list[str]):
    name = "".join(piece + filling for piece, filling in zip(pieces, [*fillings[: len(pieces) - 1], ""], strict=True))
    assert ModelPattern("*".join(pieces)).matches(name)


def test_beginning_and_end_do_not_share_letters():
    assert not ModelPattern("aba*ba").matches("aba")
    assert ModelPattern("aba*ba").matches("ababa")


def test_a_name_that_almost_matches_many_asterisks_is_refused_at_once():
    # As a regular expression this takes longer than the universe is old.
    assert not ModelPattern("a*" * 60 + "b").matches("a" * 128)


def test_a_name_is_no_pattern_and_a_pattern_no_name():
    assert not is_pattern("team-a.mnist")
    assert is_pattern("team-a-*")
    for good in ("*", "team-a-*", "*-canary", "a*b*c", "mnist", "*" * 128):
        check_pattern(good)
    for bad in ("", "-*", "a b*", "a/*", "a\n*", "*" * 129, "a?", "a\0*"):
        with pytest.raises(NameInvalid):
            check_pattern(bad)
