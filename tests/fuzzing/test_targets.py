"""The targets of fuzzing hold their promises for their seeds, for what was found once, and for simple damage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzzing.findings import FINDINGS
from tests.fuzzing.targets import SEEDS, TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_earlier_findings_are_read_or_refused(name: str):
    for data in (*SEEDS[name], *FINDINGS.get(name, ())):
        TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_seeds_are_read_or_refused(name: str, data: st.DataObject):
    seed = bytearray(data.draw(st.sampled_from(SEEDS[name])))
    for _ in range(data.draw(st.integers(1, 3))):
        place, width = data.draw(st.integers(0, len(seed))), data.draw(st.integers(0, 8))
        seed[place : place + width] = data.draw(st.binary(max_size=8))
    TARGETS[name](bytes(seed))
