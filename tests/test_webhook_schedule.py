"""When a webhook is sent again, and for how long."""

from __future__ import annotations

import itertools

from workers.webhooks.schedule import OFFSETS_SECONDS, next_attempt

HOUR_MS = 3_600_000


def test_the_schedule_goes_on_for_a_day_and_no_longer():
    began, moments = 0, [0]
    while (then := next_attempt(began, moments[-1], len(moments), None)) is not None:
        moments.append(then)

    assert len(moments) == len(OFFSETS_SECONDS) == 10
    assert all(later > earlier for earlier, later in itertools.pairwise(moments))
    assert 24 * HOUR_MS <= moments[-1] <= 27 * HOUR_MS


def test_a_receiver_that_asks_for_time_gets_it_but_no_more_than_there_is():
    assert (next_attempt(0, 1000, 1, 600) or 0) >= 601_000
    assert next_attempt(0, 23 * HOUR_MS, 5, 24 * 3600) is None
