"""All cases, in the order of their ids."""

from __future__ import annotations

import os

from tests.hostile import archives, foreign, graphs, legacy, saved_models, values, weights
from tests.hostile.bait import Case

_MODULES = (archives, foreign, values, weights, legacy, saved_models, graphs)
CASES: tuple[Case, ...] = tuple(
    sorted((case for module in _MODULES for case in module.CASES), key=lambda each: each.id)
)
# `make test-all` sets it: everything is run, also what takes longer than the whole of `make test`.
EVERYTHING = bool(os.environ.get("SLUICE_TEST_ALL"))


# A file that a runner has to read takes half a second; `make test` sends two of each kind.
READ_BY_RUNNERS = ("h5_", "onnx_")
FEW = 2


def chosen() -> list[Case]:
    """The cases of this run of the tests."""
    return [case for case in CASES if EVERYTHING or not (case.slow or _further(case))]


def _further(case: Case) -> bool:
    """Whether a runner has to read the file, and two others of its id before it."""
    if case.format == "keras" and not case.code.startswith(READ_BY_RUNNERS):
        return False
    return case not in [other for other in CASES if other.id == case.id and not other.slow][:FEW]
