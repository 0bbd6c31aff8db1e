"""Records that lack most of their cells: the same numbers as where each is written out, without a look at each gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.signature import Signature, TensorSpec
from tests.dialect_kit import signature_of
from workers.errors import InputInvalid
from workers.protocols.mlflow_scoring import parse_document

NAMES = [f"c{number}" for number in range(12)]
TABLE = signature_of(*(TensorSpec(name, "float32", (None,)) for name in NAMES))
COLUMNS = signature_of(*(TensorSpec(name, "float64", (None, 1)) for name in NAMES))
CELL = st.none() | st.integers(-5, 5) | st.floats(width=32)


class Watched(dict[str, object]):
    """A record that counts how often it is asked for a cell."""

    asked = 0

    def get(self, *arguments: object) -> object:
        Watched.asked += 1
        return super().get(*arguments)  # type: ignore[call-overload]  # as the one above it

    def __contains__(self, key: object) -> bool:
        Watched.asked += 1
        return super().__contains__(key)


def columns(records: list[dict[str, object]], signature: Signature) -> dict[str, np.ndarray]:
    return parse_document({"dataframe_records": records}, signature, 10**6).tensors


def refusal(records: list[dict[str, object]], signature: Signature = TABLE) -> str:
    with pytest.raises(InputInvalid) as caught:
        columns(records, signature)
    assert len(caught.value.message) <= 300
    return caught.value.message


@pytest.mark.parametrize("signature", [TABLE, COLUMNS], ids=["values", "rows of one"])
@given(records=st.lists(st.dictionaries(st.sampled_from([*NAMES, "other"]), CELL, max_size=2), max_size=20))
def test_a_cell_left_out_is_one_that_is_null(signature: Signature, records: list[dict[str, object]]):
    records = [*records, dict.fromkeys(NAMES, 1.5)]
    spelt = columns([dict.fromkeys(NAMES) | record for record in records], signature)
    for name, found in columns(records, signature).items():
        assert (found.dtype, found.shape) == (spelt[name].dtype, spelt[name].shape)
        np.testing.assert_array_equal(found, spelt[name])


def test_no_record_is_asked_for_the_cells_that_it_lacks():
    Watched.asked = 0
    records: list[dict[str, object]] = [Watched({NAMES[row % 12]: row}) for row in range(1200)]
    found = columns(records, TABLE)
    assert [found[name][row] for row, name in enumerate(NAMES)] == list(range(12))
    assert sum(np.isfinite(tensor).sum() for tensor in found.values()) == 1200
    assert Watched.asked == 0


def test_what_is_wrong_among_few_cells_is_told_by_its_place():
    few: list[dict[str, object]] = [{name: 1} for name in NAMES]
    assert "is not of expected type: float at column 'c3'[12]" in refusal([*few, {"c3": "a"}])
    assert "is not of expected type: float at column 'c3'[12]" in refusal([*few, {"c3": {"b64": "AA=="}}])
    assert refusal(few[:-1]).startswith('Model is missing inputs ["c11"]')
    whole = signature_of(*(TensorSpec(name, "int64", (None,)) for name in NAMES))
    assert "JSON Value: null Type: Null is not of expected type: int64 at column 'c0'[1]" in refusal(few, whole)


def test_records_of_next_to_nothing_do_not_become_any_number_of_values():
    many = [dict[str, object](dict.fromkeys(NAMES, 1)), *({} for _ in range(1_500_000))]
    with pytest.raises(InputInvalid, match="1500001 records that lack most of 12 columns become more than 67,108,864"):
        parse_document({"dataframe_records": many}, TABLE, 10**7)
