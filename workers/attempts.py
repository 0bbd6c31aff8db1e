"""Attempts: which failures are worth another one, how long it waits, and what a dead letter is.

A model's own error is told to its caller at once, since the same input would fail again. What failed by no fault of
its input is tried again, and once its attempts are used up it is a dead letter: somebody may mend the cause and replay.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, case
from sqlalchemy.orm import InstrumentedAttribute

MOST_ATTEMPTS = 3
# After the first, the second and each further attempt.
BACK_OFF_SECONDS = (1, 4, 16)

# The machine, the runner or the disk: another attempt may meet a better one.
TRIED_AGAIN = frozenset(
    {
        "decoding_unavailable",
        "internal",
        "lockdown_unavailable",
        "runner_crashed",
        "runner_disk",
        "runner_forbidden",
        "runner_memory",
        "runner_timeout",
        "store_full",
        "store_unavailable",
        "worker_crashed",
    }
)
# And what the next seconds will not mend, but an operator can.
INFRASTRUCTURE = TRIED_AGAIN | {
    "artifact_corrupt",
    "artifact_missing",
    "environment_mismatch",
    "model_quarantined",
    "predictor_too_large",
    "seal_broken",
}


def back_off_ms(attempt: ColumnElement[int] | InstrumentedAttribute[int]) -> ColumnElement[int]:
    """How many milliseconds a job waits after so many attempts, in SQL."""
    *first, last = BACK_OFF_SECONDS
    return case(
        *((attempt <= number, seconds * 1000) for number, seconds in enumerate(first, start=1)), else_=last * 1000
    )
