"""Page tokens of lists by number: they lead to the next page, and say nothing of the number."""

from __future__ import annotations

import base64
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.page_tokens import (
    DELIVERIES,
    HIGHEST_NUMBER,
    TOKEN_CHARACTERS,
    TOKEN_EXAMPLE,
    PageTokenInvalid,
    PageTokens,
)
from model_store.sealing import SealingKeys

OLD, NEW, OTHER = b"o" * 32, b"n" * 32, b"x" * 32
PAGES = PageTokens(SealingKeys([NEW, OLD]))


@given(st.integers(0, HIGHEST_NUMBER))
def test_a_token_leads_back_to_its_number_at_every_gateway(number: int):
    token = PAGES.make(number)
    assert len(token) == TOKEN_CHARACTERS
    assert PageTokens(SealingKeys([NEW])).below(token) == number
    assert PAGES.below(PageTokens(SealingKeys([OLD])).make(number)) == number


def test_the_same_number_of_another_list_has_another_token():
    assert PAGES.below(PAGES.make(5, DELIVERIES), DELIVERIES) == 5
    assert PAGES.make(5, DELIVERIES) != PAGES.make(5)


def test_without_a_token_a_page_begins_above_all():
    assert PAGES.below(None) == HIGHEST_NUMBER


def test_tokens_of_neighbours_have_nothing_in_common():
    bits = [int.from_bytes(base64.urlsafe_b64decode(PAGES.make(number))) for number in range(1000)]
    differing = [(one ^ other).bit_count() for one, other in itertools.pairwise(bits)]
    assert min(differing) > 50  # of 192; half of them on average
    assert sorted(bits) != bits


@pytest.mark.parametrize(
    "token",
    [
        "", "é", "MTIzNDU=", "A" * 32, "*" * 32, "A" * 64, TOKEN_EXAMPLE, PageTokens(SealingKeys([OTHER])).make(5),
        PAGES.make(5, DELIVERIES), PAGES.make(5)[:-1], PAGES.make(5) + "=", PAGES.make(5)[::-1], PAGES.make(5).upper(),
    ],
    ids=[
        "empty", "no-ascii", "a-number", "zeros", "no-base64", "long", "the-example", "of-another-installation",
        "of-another-list", "cut", "padded", "reversed", "changed",
    ],
)  # fmt: skip
def test_what_no_gateway_made_is_refused(token: str):
    with pytest.raises(PageTokenInvalid):
        PAGES.below(token)
