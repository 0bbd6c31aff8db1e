"""Time that does not go back: an expired token stays expired, whatever is done to clocks."""

from __future__ import annotations

import logging

import pytest

from auth.errors import Reason, TokenInvalid
from auth.forward_clock import ForwardClock
from auth.tokens import Verifier
from tests.forgery import CLAIMS, KEY, NOW, FixedKeys, forged

HOUR = 3600


class Clocks:
    """A machine's two clocks, and a ForwardClock on them."""

    def __init__(self) -> None:
        self.wall_seconds, self.monotonic_seconds = float(NOW), 1000.0
        self.forward = ForwardClock(wall=lambda: self.wall_seconds, monotonic=lambda: self.monotonic_seconds)

    def pass_(self, seconds: float) -> None:
        self.wall_seconds += seconds
        self.monotonic_seconds += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_before_the_database_was_asked_the_machines_clock_counts(clocks: Clocks):
    assert clocks.forward.now() == NOW


def test_the_databases_clock_counts_and_moves_on_without_being_asked(clocks: Clocks):
    clocks.forward.observe(NOW + 500)
    clocks.pass_(7)
    assert clocks.forward.now() == NOW + 507
    clocks.wall_seconds -= HOUR
    assert clocks.forward.now() == NOW + 507, "the machine's own clock does not matter"


def test_a_database_whose_clock_goes_back_does_not_take_time_back(clocks: Clocks, caplog: pytest.LogCaptureFixture):
    clocks.forward.observe(NOW)
    clocks.pass_(60)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clocks.forward.observe(NOW + 60 - HOUR)
    assert clocks.forward.now() == NOW + 60
    assert len(caplog.records) == 1, "told once, not twice a second"
    clocks.pass_(2)
    clocks.forward.observe(NOW + 61.9)
    assert clocks.forward.now() == NOW + 62, "small steps back are no news"
    clocks.forward.observe(NOW + 100)
    assert clocks.forward.now() == NOW + 100


def test_an_expired_token_is_not_accepted_again_when_the_clock_is_set_back(clocks: Clocks):
    clocks.forward.observe(NOW)
    verifier = Verifier(FixedKeys(KEY), issuer="sluice", audience="sluice", max_seconds=900, clock=clocks.forward.now)
    token = forged()
    claims = verifier.verify(token)
    clocks.pass_(CLAIMS["exp"] - NOW + 31)
    clocks.wall_seconds -= HOUR
    clocks.forward.observe(clocks.wall_seconds)
    assert not verifier.current(claims)
    with pytest.raises(TokenInvalid) as refused:
        verifier.verify(token)
    assert refused.value.reason is Reason.EXPIRED
