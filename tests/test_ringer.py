"""When lanes are rung for, and on which slot."""

from __future__ import annotations

import pytest

from tests.queue_kit import tell_slots
from workers import ringer as ringer_module
from workers.lanes import Keys, Lane, Priority
from workers.pools import OnePool
from workers.ringer import Ringer


def test_a_lane_is_rung_once_a_second_and_stays_with_a_slot_that_serves():
    now = [100.0]
    ringer, lane = Ringer(Keys("p"), OnePool("default"), lambda: now[0]), Lane("m", 1, Priority.INTERACTIVE, "c")
    tell_slots(ringer, "a", "b", "c")
    first = ringer.due(lane)
    assert first is not None
    assert ringer.due(lane) is None
    now[0] += 1
    [second] = ringer.again([lane])
    assert second.slot != first.slot
    ringer.answered(lane)
    now[0] += 1
    third = ringer.due(lane)
    assert third is not None
    assert third.slot == first.slot


def test_a_lane_that_was_forgotten_among_many_is_rung_again_while_somebody_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ringer_module, "RUNG_LANES", 1)
    now = [100.0]
    ringer = Ringer(Keys("p"), OnePool("default"), lambda: now[0])
    tell_slots(ringer, "a")
    waited_in, another = (Lane("m", 1, Priority.INTERACTIVE, client) for client in ("c", "d"))
    ringer.due(waited_in)
    now[0] += 1.1
    ringer.due(another)
    assert len(ringer.again([waited_in])) == 1
