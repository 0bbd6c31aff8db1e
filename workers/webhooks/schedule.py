"""When a webhook is tried again, and when no more."""

from __future__ import annotations

import random

# Since the first attempt, after the specification: at once, 5 s, 5 min, 30 min, then hours.
OFFSETS_SECONDS = (
    0, 5, 300, 1800, 2 * 3600, 5 * 3600, 10 * 3600, 14 * 3600, 20 * 3600, 24 * 3600,
)  # fmt: skip
JITTER = 0.1
SECOND_MS = 1000
# What waited behind others of its receiver may be tried this long after its last turn.
GRACE_SECONDS = 3600


def next_attempt(began_at: int, now: int, attempts: int, retry_after_seconds: int | None) -> int | None:
    """The moment of the attempt after `attempts` that failed, or None where it is given up; milliseconds since 1970.

    Never earlier than the receiver asked for, and later by up to a tenth of the pause, so that what failed together
    does not come back together.
    """
    if attempts >= len(OFFSETS_SECONDS):
        return None
    planned = max(began_at + OFFSETS_SECONDS[attempts] * SECOND_MS, now)
    asked = now + (retry_after_seconds or 0) * SECOND_MS
    at = max(planned, asked)
    if at > began_at + (OFFSETS_SECONDS[-1] + GRACE_SECONDS) * SECOND_MS:
        return None
    return at + int((at - now) * JITTER * random.random())  # noqa: S311 - guards nothing
