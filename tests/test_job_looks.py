"""Looks at jobs while the database is blocked: nobody stands in line for it, and once it is back everybody looks."""

from __future__ import annotations

import asyncio
import threading
import time

from gateway.job_looks import THREADS, JobLooks
from model_store.errors import DatabaseUnavailable

LINE = 50
WAIT_SECONDS = 30


class Blocked:
    """A look that keeps whoever takes it until it is let go, and then fails."""

    def __init__(self, error: Exception) -> None:
        self.asked = 0
        self._error = error
        self._let_go = threading.Event()

    def __call__(self) -> str:
        self.asked += 1
        self._let_go.wait(WAIT_SECONDS)
        raise self._error

    async def fail_with_all_threads(self) -> None:
        until = time.monotonic() + WAIT_SECONDS
        while self.asked < THREADS:
            assert time.monotonic() < until
            await asyncio.sleep(0.001)
        self._let_go.set()


async def answers(error: Exception) -> tuple[int, list[object], object]:
    """How many looked, what each of a line was told when the first ones fail, and what whoever comes later is."""
    looks, blocked = JobLooks(), Blocked(error)
    try:
        line = [asyncio.create_task(looks.take(blocked)) for _ in range(THREADS + LINE)]
        await blocked.fail_with_all_threads()
        told: list[object] = [*await asyncio.gather(*line, return_exceptions=True)]
        return blocked.asked, told, await looks.take(lambda: "an answer")
    finally:
        looks.close()


def test_who_stands_in_line_for_a_database_that_does_not_answer_is_refused_without_asking():
    asked, told, later = asyncio.run(answers(DatabaseUnavailable("it is blocked")))
    assert {type(one) for one in told} == {DatabaseUnavailable}
    assert asked == THREADS
    assert later == "an answer"


def test_what_is_wrong_with_one_look_alone_is_told_to_nobody_else():
    asked, told, later = asyncio.run(answers(LookupError("there is no such job")))
    assert {type(one) for one in told} == {LookupError}
    assert asked == THREADS + LINE
    assert later == "an answer"
