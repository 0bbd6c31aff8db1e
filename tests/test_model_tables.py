"""What the command line shows of models: the tables' contents, and that an 80-column terminal cuts none of them."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from sluice.traffic_commands import means, targets
from sluice.variant_commands import compared, latencies
from sluice.version_table import batches, padding, state_of
from sluice.worker_commands import processes

MODEL: dict[str, Any] = {
    "name": "clf",
    "labels": {"stable": 2},
    "versions": [
        {"version": 1, "state": "END", "error": None, "withdrawn": True},
        {"version": 2, "state": "AVAILABLE", "error": None, "withdrawn": False},
    ],
}


def cells(table: Table) -> list[tuple[str, ...]]:
    """A table's rows."""
    return list(zip(*(map(str, column.cells) for column in table.columns), strict=True))


def lines(table: Table) -> list[str]:
    """What a terminal of 80 columns shows."""
    console = Console(width=80, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(table)
    return capture.get().splitlines()


def test_a_split_is_shown_with_what_left_it_and_what_that_had():
    traffic = {"weights": {"1": 90, "stable": 10}, "shares": [{"version": 2, "share": 1.0}]}
    assert cells(targets(traffic, MODEL)) == [
        ("1", "1", "END (retired)", "90", ""),
        ("stable", "2", "AVAILABLE", "10", "100 %"),
    ]


def test_what_a_bare_name_means_is_said_in_words():
    assert means([]) == "nothing, since no version serves"
    assert means([{"version": 3, "share": 1.0}]) == "version 3"
    assert means([{"version": 1, "share": 0.9}, {"version": 2, "share": 0.1}]) == "version 1 90 %, version 2 10 %"


@pytest.mark.parametrize(
    ("state", "withdrawn", "error", "said"),
    [
        ("END", True, None, "END (retired)"),
        ("END", False, None, "END (by policy)"),
        ("UNLOADING", False, None, "UNLOADING (by policy)"),
        ("AVAILABLE", True, None, "AVAILABLE (rolled back)"),
        ("AVAILABLE", False, None, "AVAILABLE"),
        ("END", False, {"code": "class_not_allowed"}, "END"),
    ],
)
def test_a_state_says_by_whom_a_version_left(state: str, withdrawn: bool, error: object, said: str):
    assert state_of({"state": state, "withdrawn": withdrawn, "error": error}) == said


FIGURES: dict[str, Any] = {
    "size_bytes": 123_456_789,
    "memory_bytes": 987_654_321,
    "max_abs_difference": 1.25e-7,
    "top1_agreement": 0.995,
    "latency_ms": {str(2**power): 0.123 * 2**power for power in range(9)},
    "reason": "it is slower than the variant that serves",
}
COMPARISON: dict[str, Any] = {
    "versions": [{"version": 1, "chosen": "onnx-int8-static"}, {"version": 2, "chosen": "onnx"}],
    "variants": [{"name": "onnx-int8-static", "figures": [FIGURES, FIGURES]}],
}


def test_a_comparison_fits_a_terminal_and_shows_a_few_batches():
    assert cells(latencies(COMPARISON))[0] == ("onnx-int8-static", "v1", "0.123", "0.984", "3.94", "31.5")
    for table in (compared(COMPARISON), latencies(COMPARISON)):
        shown = lines(table)
        assert sum("onnx-int8-static" in line for line in shown) == 2
        assert len(shown) == 7


def test_padding_is_a_table_of_its_own_beside_the_batches():
    probe = {"instances": 5, "padded_to": 8, "ms": 1.5, "padded_ms": 1.25}
    found = {
        "max_batch": 8,
        "curve": [{"instances": 8, "instances_per_second": 4000.0}],
        "pad_to": [8],
        "padding": [probe],
    }
    assert cells(batches(found)) == [("8", "4,000", "largest batch")]
    assert cells(padding(found)) == [("5", "1.5", "8", "1.25", "padded")]


def test_a_worker_names_a_few_of_its_versions():
    loaded = [f"model:{number}" for number in range(5)]
    (found,) = cells(processes([{"name": "w", "pool": "", "slots": ["1"], "versions": loaded}]))
    assert found[-1] == "model:0 model:1 model:2 and 2 more"
