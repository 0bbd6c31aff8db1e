"""The predictor cache, with predictors that remember whether they were closed."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from prometheus_client import Counter

from monitoring.metrics import LOADED_PREDICTORS, PREDICTOR_BYTES, PREDICTOR_EVICTIONS, Labelled
from tests.predictor_shelf import Adder, Shelf
from workers.cached_predictors import MOST_USES
from workers.errors import EnvironmentMismatch, PredictionFailed, PredictorTooLarge
from workers.predictor_cache import PredictorCache


def names(cache: PredictorCache) -> list[str]:
    return sorted(loaded.model for loaded in cache.loaded())


def test_a_predictor_is_loaded_on_first_use_and_then_kept():
    shelf = Shelf()
    cache = PredictorCache(100, shelf.load)
    assert cache.peek("a", 3) is None

    first = cache.get("a", 3)

    assert first.run({"x": np.array([1])})["y"].tolist() == [4]
    assert cache.get("a", 3) is first
    assert cache.peek("a", 3) is first
    assert cache.get("a", 4) is not first
    assert [(loaded.model, loaded.version, loaded.memory_bytes) for loaded in cache.loaded()] == [
        ("a", 3, 10),
        ("a", 4, 10),
    ]


def test_many_who_ask_at_once_cause_one_load():
    shelf = Shelf()
    shelf.gate.clear()
    cache = PredictorCache(100, shelf.load)
    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(cache.get, "a", 1) for _ in range(8)]
        assert shelf.started.acquire(timeout=20)
        shelf.gate.set()
        assert len({id(future.result()) for future in asked}) == 1
    assert len(shelf.made) == 1


def test_different_versions_load_side_by_side_and_a_peek_does_not_wait():
    shelf = Shelf()
    shelf.gate.clear()
    cache = PredictorCache(100, shelf.load)
    with ThreadPoolExecutor(2) as threads:
        asked = [threads.submit(cache.get, name, 1) for name in ("a", "b")]
        assert shelf.started.acquire(timeout=20)
        assert shelf.started.acquire(timeout=20)  # the second load began although the first has not ended
        assert cache.peek("a", 1) is None
        shelf.gate.set()
        for future in asked:
            future.result()
    assert sorted(names(cache)) == ["a", "b"]


def test_over_the_budget_the_one_that_was_used_longest_ago_leaves():
    shelf = Shelf()
    cache = PredictorCache(30, shelf.load)
    for name in ("a", "b", "c"):
        cache.get(name, 1)
    cache.used("a", 1)

    cache.get("d", 1)

    assert names(cache) == ["a", "c", "d"]
    assert shelf.closed() == [0, 1, 0, 0]


def test_what_was_used_more_often_stays_though_another_was_used_since():
    cache = PredictorCache(20, Shelf().load)
    for name in ("often", "often", "often", "lately"):
        cache.get(name, 1)
    cache.get("new", 1)
    assert names(cache) == ["new", "often"]


def test_what_was_used_often_once_leaves_when_others_are_used_instead():
    cache = PredictorCache(20, Shelf().load)
    for _ in range(1000):
        cache.get("once", 1)
    for number in range(MOST_USES + 2):
        cache.get(f"other-{number}", 1)
        cache.get(f"other-{number}", 1)
    assert "once" not in names(cache)


def test_pinned_models_stay_whatever_else_is_used():
    cache = PredictorCache(30, Shelf().load)
    cache.pin(["pinned"])
    cache.get("pinned", 1)
    for name in ("a", "b", "c", "a", "b", "c"):
        cache.get(name, 1)
    assert "pinned" in names(cache)
    assert (cache.figures().memory_bytes, cache.figures().pinned_bytes) == (30, 10)

    cache.pin([])
    for name in ("a", "b", "c", "a", "b", "c"):
        cache.get(name, 1)
    assert "pinned" not in names(cache)


def test_what_does_not_fit_beside_the_pins_is_loaded_for_its_use_and_leaves_after_it():
    cache = PredictorCache(30, Shelf(large=25).load)
    cache.pin(["pinned"])
    cache.get("pinned", 1)
    with cache.lease("large", 1):
        assert names(cache) == ["large", "pinned"]
    assert names(cache) == ["pinned"]


def test_pins_that_exceed_the_budget_leave_like_others_and_are_told():
    before = gauge_of(PREDICTOR_EVICTIONS, reason="pinned")
    cache = PredictorCache(30, Shelf().load)
    cache.pin(["a", "b", "c", "d"])
    for name in ("a", "b", "c", "d"):
        cache.get(name, 1)
    assert names(cache) == ["b", "c", "d"]
    assert gauge_of(PREDICTOR_EVICTIONS, reason="pinned") == before + 1


def test_room_is_made_before_a_version_takes_it():
    shelf = Shelf()

    def load(model: str, version: int) -> Adder:
        cache.expect(model, version, 10)
        seen.append(names(cache))
        return shelf.load(model, version)

    seen: list[list[str]] = []
    cache = PredictorCache(20, load)
    for name in ("a", "b", "c"):
        cache.get(name, 1)
    assert seen == [[], ["a"], ["b"]]
    cache.expect("unasked", 1, 1000)
    cache.get("c", 1)
    assert names(cache) == ["b", "c"]


def test_a_version_that_is_loaded_anew_serves_by_its_old_predictor_until_the_new_one_is_there():
    shelf = Shelf()
    cache = PredictorCache(30, shelf.load)
    old = cache.get("a", 1)
    assert shelf.started.acquire(timeout=20)
    shelf.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        renewed = threads.submit(cache.renew, "a", 1)
        assert shelf.started.acquire(timeout=20)
        with cache.lease("a", 1) as leased:
            assert leased is old
            shelf.gate.set()
            renewed.result()
            assert not old.closed
            assert cache.get("a", 1) is not old
    assert shelf.closed() == [1, 0]
    cache.renew("absent", 1)
    assert names(cache) == ["a"]


def test_a_version_that_cannot_be_loaded_anew_serves_as_it_is():
    answers: list[Callable[[], Adder]] = [lambda: Adder(1, 1), lambda: Adder(1, 1000)]
    cache = PredictorCache(100, lambda _model, _version: answers.pop(0)())
    old = cache.get("a", 1)
    with pytest.raises(PredictorTooLarge):
        cache.renew("a", 1)
    assert cache.get("a", 1) is old


def test_hits_misses_loads_and_evictions_are_counted():
    cache = PredictorCache(20, Shelf().load)
    for name in ("a", "a", "b", "c"):
        cache.get(name, 1)
    cache.used("c", 1)
    figures = cache.figures()
    assert (figures.hits, figures.misses, figures.loads, figures.evictions) == (2, 3, 3, 1)
    assert (figures.memory_bytes, figures.budget_bytes) == (20, 20)
    assert figures.load_seconds >= 0


def test_as_many_leave_as_a_large_one_needs():
    shelf = Shelf(large=25)
    cache = PredictorCache(30, shelf.load)
    for name in ("a", "b", "c", "large"):
        cache.get(name, 1)
    assert names(cache) == ["large"]
    assert shelf.closed() == [1, 1, 1, 0]


def test_a_leased_predictor_is_never_evicted_and_leaves_when_it_is_given_back():
    shelf = Shelf()
    cache = PredictorCache(10, shelf.load)
    with cache.lease("a", 1) as a:
        with cache.lease("b", 1) as b:
            assert names(cache) == ["a", "b"]  # over the budget, for want of one to evict
            assert a.run({"x": np.array([0])})["y"].tolist() == [1]
            assert b.run({"x": np.array([0])})["y"].tolist() == [1]
        assert [loaded.leases for loaded in cache.loaded()] == [1]
        assert shelf.closed() == [0, 1]
    assert names(cache) == ["a"]


def test_a_dropped_predictor_is_closed_once_when_the_last_lease_ends():
    shelf = Shelf()
    cache = PredictorCache(100, shelf.load)
    with cache.lease("a", 1), cache.lease("a", 1):
        cache.drop("a", 1)
        assert names(cache) == []
        assert shelf.closed() == [0]
        with cache.lease("a", 1):
            assert shelf.closed() == [0, 0]
    assert shelf.closed() == [1, 0]


def test_a_version_dropped_while_it_is_loaded_is_loaded_anew_for_those_who_wait():
    shelf = Shelf()
    shelf.gate.clear()
    cache = PredictorCache(100, shelf.load)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(cache.get, "a", 1)
        assert shelf.started.acquire(timeout=20)
        cache.drop("a", 1)
        shelf.gate.set()
        assert asked.result() is shelf.made[1]
    assert shelf.closed() == [1, 0]


def test_a_predictor_larger_than_the_whole_budget_is_refused_and_pushes_nobody_out():
    shelf = Shelf(huge=101)
    cache = PredictorCache(100, shelf.load)
    cache.get("a", 1)
    with pytest.raises(PredictorTooLarge):
        cache.get("huge", 1)
    assert names(cache) == ["a"]
    assert shelf.closed() == [0, 1]


def test_a_failed_load_fails_for_all_who_wait_is_not_repeated_at_once_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
):
    tries = 0
    begun, gate = threading.Event(), threading.Event()

    def load(_model: str, version: int) -> Adder:
        nonlocal tries
        tries += 1
        begun.set()
        assert gate.wait(20)
        if tries == 1:
            raise PredictionFailed("no model")
        return Adder(version, 1)

    monkeypatch.setattr("workers.predictor_cache.FAILURE_SECONDS", 1000.0)
    cache = PredictorCache(100, load)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(cache.get, "a", 1) for _ in range(4)]
        assert begun.wait(20)
        gate.set()
        for future in asked:
            assert isinstance(future.exception(), PredictionFailed)
    with pytest.raises(PredictionFailed):
        cache.get("a", 1)
    assert tries == 1

    cache.drop("a", 1)  # forgets the failure too, as time would
    assert cache.get("a", 1) is cache.peek("a", 1)


def test_a_failure_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch):
    answers: list[Callable[[], Adder]] = [lambda: Adder(1, 1), lambda: Adder(1, 1000)]
    monkeypatch.setattr("workers.predictor_cache.FAILURE_SECONDS", 0.0)
    cache = PredictorCache(100, lambda _model, _version: answers.pop()())
    with pytest.raises(PredictorTooLarge):
        cache.get("a", 1)
    cache.get("a", 1)


def test_what_computes_otherwise_here_is_not_proved_again_each_second(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.predictor_cache.FAILURE_SECONDS", 0.0)
    loads: list[str] = []

    def load(model: str, _version: int) -> Adder:
        loads.append(model)
        raise EnvironmentMismatch("other kernels")

    cache = PredictorCache(100, load)
    for _ in range(3):
        with pytest.raises(EnvironmentMismatch):
            cache.get("a", 1)
    assert loads == ["a"]
    # until something else is served, perhaps what was prepared here
    cache.forget_failures()
    with pytest.raises(EnvironmentMismatch):
        cache.get("a", 1)
    assert loads == ["a", "a"]


def test_of_versions_that_cannot_be_loaded_only_the_last_ones_are_remembered(monkeypatch: pytest.MonkeyPatch):
    def load(model: str, version: int) -> Adder:
        raise PredictionFailed(f"no model {model} {version}")

    monkeypatch.setattr("workers.predictor_cache.FAILURE_SECONDS", 0.0)
    cache = PredictorCache(100, load)
    refused = []
    for version in range(20):
        with pytest.raises(PredictionFailed) as raised:
            cache.get("a", version)
        refused.append(weakref.ref(raised.value))
        del raised
    gc.collect()
    assert sum(error() is not None for error in refused) <= 1


def test_the_gauges_follow_and_closing_drops_everything():
    shelf = Shelf()
    cache = PredictorCache(100, shelf.load)
    cache.get("a", 1)
    cache.get("b", 1)
    assert (gauge(LOADED_PREDICTORS), gauge(PREDICTOR_BYTES)) == (2, 20)
    cache.close()
    assert (gauge(LOADED_PREDICTORS), gauge(PREDICTOR_BYTES)) == (0, 0)
    assert shelf.closed() == [1, 1]


def gauge_of(metric: Labelled[Counter], **labels: str) -> float:
    return gauge(metric.labels(**labels))


def gauge(metric: object) -> float:
    return next(iter(metric.collect())).samples[0].value  # type: ignore[attr-defined]
