"""The judge of memory and open files finds what grows without end, and lets start-up, peaks and noise pass."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.checker import Verdict
from tests.chaos.footprints import FILES_BOUND, MEMORY_BOUND, SAMPLE_SECONDS, Growth, Kind, Sample, growths
from tests.chaos.trial import Trial

RUN_SECONDS = 600
BASE = 150_000_000.0
Course = Callable[[float], float]


def life(
    memory: Course, files: Course = lambda _: 40.0, *, born: float = 0, died: float = RUN_SECONDS, pid: int = 1
) -> list[Sample]:
    """The samples of one process, whose courses are functions of its age in seconds."""
    count = int((died - born) / SAMPLE_SECONDS)
    ages = [SAMPLE_SECONDS * number for number in range(count + 1)]
    return [Sample(born + age, Kind.GATEWAY, pid, int(memory(age)), int(files(age))) for age in ages]


def judged(*lives: list[Sample]) -> Growth:
    [found] = growths([sample for one in lives for sample in one])
    return found


def start_up(age: float) -> float:
    """It grows by 60 MB in its first minute, and then no more."""
    return BASE + 1e6 * min(age, 60)


def noisy(age: float) -> float:
    return BASE + random.Random(age).uniform(-5e6, 5e6)  # noqa: S311 - repeatable, not secret


def peaked(age: float) -> float:
    """Now and then it takes 200 MB for a moment, the more often the later."""
    return BASE + (2e8 if age % 45 == 0 and age > 300 else 0)


def stepped(age: float) -> float:
    """It takes 50 MB for good in the first half: a cache that is filled."""
    return BASE + (5e7 if age > 200 else 0)


@pytest.mark.parametrize("course", [start_up, noisy, peaked, stepped])
def test_what_does_not_go_on_growing_passes(course: Course) -> None:
    assert judged(life(course)).bounded


def test_what_goes_on_growing_is_found_in_spite_of_noise() -> None:
    # given 20 % more a minute than it may, which is 30 MB in all
    found = judged(life(lambda age: noisy(age) + 1.2 * MEMORY_BOUND * age / 60))
    assert not found.bounded
    assert found.memory == pytest.approx(1.2 * MEMORY_BOUND, rel=0.15)


def test_a_leak_that_begins_in_the_second_half_is_found() -> None:
    assert not judged(life(lambda age: BASE + 3 * MEMORY_BOUND * max(0, age - 300) / 60)).bounded


def test_descriptors_that_are_never_closed_are_found() -> None:
    found = judged(life(noisy, lambda age: 40 + 1.5 * FILES_BOUND * age / 60))
    assert not found.bounded
    assert found.memory <= MEMORY_BOUND


def test_a_leak_is_found_though_faults_end_every_process_soon() -> None:
    lives = [
        life(lambda age: start_up(age) + 2 * MEMORY_BOUND * age / 60, born=born, died=born + 140, pid=born)
        for born in range(0, RUN_SECONDS - 140, 70)
    ]
    found = judged(*lives)
    assert found.processes > 1
    assert not found.bounded


def test_one_process_of_many_that_grows_by_chance_is_no_leak_of_its_kind() -> None:
    assert judged(life(noisy, pid=1), life(noisy, pid=2), life(lambda age: BASE + 1e5 * age, pid=3)).bounded


def test_a_run_whose_processes_grow_has_not_held(tmp_path: Path) -> None:
    leaking = life(lambda age: BASE + 2 * MEMORY_BOUND * age / 60)
    assert report.held([Trial("", Verdict(), tmp_path, RUN_SECONDS, samples=life(noisy))])
    assert not report.held([Trial("", Verdict(), tmp_path, RUN_SECONDS, samples=leaking)])


def test_processes_that_lived_too_short_are_not_judged() -> None:
    assert growths(life(lambda age: BASE + 1e6 * age, born=400, died=500)) == []
    assert growths([]) == []
