"""Examples as TensorFlow serializes them."""

from __future__ import annotations

import struct

import pytest

from workers.protocols.example_bytes import float_bytes


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.5, 1.5), (1e39, float("inf")), (10**55, float("inf")), (10**400, float("inf")), (-(10**400), float("-inf"))],
    ids=["exact", "beyond float32", "an integer beyond float32", "an integer beyond float64", "a negative one"],
)
def test_numbers_that_are_too_large_are_infinite(value: float, expected: float):
    assert struct.unpack("<f", float_bytes(value)) == (expected,)
