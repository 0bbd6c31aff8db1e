"""The cell rate algorithm: in Redis and in the gateway the same, number for number, and what it promises."""

from __future__ import annotations

import secrets
from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.gcra import MICROSECONDS, SCRIPT, TAKE, Gcra
from tests.conftest import RedisServer

# 2026, in microseconds: doubles are coarser there than near zero.
BEGIN = 1_790_000_000_000_000
TOLD_CLOCK = "local now = tonumber(ARGV[4])\n"

rates = st.one_of(st.integers(1, 10_000).map(float), st.floats(0.01, 1000))
bursts = st.integers(1, 500)
# Microseconds until the next question, and how many are wanted.
questions = st.lists(st.tuples(st.integers(0, 3_000_000), st.integers(1, 600)), min_size=1, max_size=30)


def exactly(rate: float, burst: int, asked: list[tuple[int, int]]) -> list[int]:
    """The algorithm as its definition has it: one request after the other, in whole fractions of a second."""
    step, due, now, taken = 1 / Fraction(rate), Fraction(0), Fraction(BEGIN, MICROSECONDS), []
    for pause, wanted in asked:
        now += Fraction(pause, MICROSECONDS)
        count = 0
        while count < wanted and max(due, now) + step <= now + burst * step:
            due = max(due, now) + step
            count += 1
        taken.append(count)
    return taken


@settings(max_examples=60)
@given(rate=rates, burst=bursts, asked=questions)
def test_a_block_is_as_many_single_requests(rate: float, burst: int, asked: list[tuple[int, int]]):
    local, now, differences = Gcra(rate, burst), BEGIN, 0
    for (pause, wanted), expected in zip(asked, exactly(rate, burst, asked), strict=True):
        now += pause
        differences += local.take(wanted, now).count - expected
        # Rounding to quarters of a microsecond may move one request into the next question, never more.
        assert abs(differences) <= 1


@settings(max_examples=60)
@given(rate=rates, burst=bursts, asked=questions)
def test_never_more_than_the_burst_and_the_rate_since(rate: float, burst: int, asked: list[tuple[int, int]]):
    local, now, taken = Gcra(rate, burst), BEGIN, []
    for pause, wanted in asked:
        now += pause
        taken.append((now, local.take(wanted, now).count))
    for first, (begin, _) in enumerate(taken):
        total = 0
        for moment, count in taken[first:]:
            total += count
            assert total <= burst + rate * ((moment - begin) / MICROSECONDS + 1e-6 * len(asked))


@settings(max_examples=40)
@given(rate=rates, burst=bursts, asked=questions, given_back=st.sets(st.integers(0, 29)))
def test_redis_counts_as_the_gateway_does(
    redis_server: RedisServer, rate: float, burst: int, asked: list[tuple[int, int]], given_back: set[int]
):
    client, key = redis_server.client(), f"gcra:{secrets.token_hex(6)}"
    local, now = Gcra(rate, burst), BEGIN
    for number, (pause, wanted) in enumerate(asked):
        now += pause
        words = repr(local.step), burst, -wanted if number in given_back else wanted, now
        expected = local.take(int(words[2]), now)
        found = client.eval(TOLD_CLOCK + TAKE, 1, key, *words)
        assert found == [expected.count, round(expected.wait_seconds * MICROSECONDS), expected.room]
        assert 0 < client.pttl(key) <= 1000 + 1000 * burst / rate + 1
    client.delete(key)
    client.close()


def test_who_was_told_when_to_come_again_finds_room_then_and_not_before():
    local = Gcra(3.0, 2)
    assert [local.take(1, BEGIN).count for _ in range(3)] == [1, 1, 0]
    wait = round(local.take(1, BEGIN).wait_seconds * MICROSECONDS)
    assert local.take(1, BEGIN + wait - 2).count == 0
    assert local.take(1, BEGIN + wait).count == 1


def test_redis_has_the_clock_of_all_gateways(redis_server: RedisServer):
    client, key = redis_server.client(), f"gcra:{secrets.token_hex(6)}"
    assert client.eval(SCRIPT, 1, key, "1e9", 2, 5) == [2, 1_000_000_000, 0]
    count, wait, room = client.eval(SCRIPT, 1, key, "1e9", 2, 1)
    assert (count, room) == (0, 0)
    assert 900_000_000 < wait <= 1_000_000_000
    client.close()
