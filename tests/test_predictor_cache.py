"""The predictor cache, with predictors that remember whether they were closed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from model_store.signature import Signature, Tensors, TensorSpec
from monitoring.metrics import LOADED_PREDICTORS, PREDICTOR_BYTES
from workers.errors import PredictionFailed, PredictorTooLarge
from workers.predictor_cache import PredictorCache

SIGNATURE = Signature((TensorSpec("x", "int64", (None,)),), (TensorSpec("y", "int64", (None,)),))


class Adder:
    """A predictor of our own: adds its version's number; must not be used once closed."""

    runtime = "adder"
    signature = SIGNATURE

    def __init__(self, number: int, memory_bytes: int) -> None:
        self.number = number
        self.memory_bytes = memory_bytes
        self.closed = 0

    def run(self, tensors: Tensors) -> Tensors:
        assert not self.closed
        return {"y": tensors["x"].astype(np.int64) + self.number}

    def close(self) -> None:
        self.closed += 1


class Shelf:
    """Loads adders and remembers them all; `sizes` gives their sizes, `gate` holds loads back until it is set."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = sizes
        self.made: list[Adder] = []
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Semaphore(0)

    def load(self, model: str, version: int) -> Adder:
        self.started.release()
        assert self.gate.wait(20)
        adder = Adder(version, self.sizes.get(model, 10))
        self.made.append(adder)
        return adder

    def closed(self) -> list[int]:
        return [adder.closed for adder in self.made]


def names(cache: PredictorCache) -> list[str]:
    return [loaded.model for loaded in cache.loaded()]


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
    cache.peek("a", 1)

    cache.get("d", 1)

    assert names(cache) == ["a", "c", "d"]
    assert shelf.closed() == [0, 1, 0, 0]


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


def test_the_gauges_follow_and_closing_drops_everything():
    shelf = Shelf()
    cache = PredictorCache(100, shelf.load)
    cache.get("a", 1)
    cache.get("b", 1)
    assert (gauge(LOADED_PREDICTORS), gauge(PREDICTOR_BYTES)) == (2, 20)
    cache.close()
    assert (gauge(LOADED_PREDICTORS), gauge(PREDICTOR_BYTES)) == (0, 0)
    assert shelf.closed() == [1, 1]


def gauge(metric: object) -> float:
    return next(iter(metric.collect())).samples[0].value  # type: ignore[attr-defined]


def test_threads_that_lease_drop_and_evict_at_once_never_meet_a_closed_predictor():
    shelf = Shelf()
    cache = PredictorCache(30, shelf.load)
    random = np.random.default_rng(7)
    steps = random.integers(0, 6, (4, 300))

    def work(row: np.ndarray) -> None:
        for number in row.tolist():
            if number == 0:
                cache.drop("m", 1)
            with cache.lease("m", number) as predictor:
                assert predictor.run({"x": np.array([1])})["y"].tolist() == [number + 1]

    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(work, row) for row in steps]:
            future.result()

    assert sum(loaded.memory_bytes for loaded in cache.loaded()) <= 30
    cache.close()
    assert set(shelf.closed()) == {1}


class Cache(RuleBasedStateMachine):
    """Any order of uses: within the budget unless leases forbid it, nothing closed in use, nothing closed twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf(a=5, b=10, c=20)
        self.cache = PredictorCache(30, self.shelf.load)
        self.leases: list[tuple[Adder, object]] = []

    @rule(model=st.sampled_from("abc"), version=st.integers(1, 2))
    def get(self, model: str, version: int) -> None:
        assert self.cache.get(model, version).run({"x": np.array([1])})["y"].tolist() == [1 + version]

    @rule(model=st.sampled_from("abc"), version=st.integers(1, 2))
    def lease(self, model: str, version: int) -> None:
        manager = self.cache.lease(model, version)
        self.leases.append((manager.__enter__(), manager))

    @rule(index=st.integers(0, 20))
    def give_back(self, index: int) -> None:
        if self.leases:
            _, manager = self.leases.pop(index % len(self.leases))
            manager.__exit__(None, None, None)  # type: ignore[attr-defined]

    @rule(model=st.sampled_from("abc"), version=st.integers(1, 2))
    def drop(self, model: str, version: int) -> None:
        self.cache.drop(model, version)

    @invariant()
    def it_holds(self) -> None:
        assert not any(predictor.closed for predictor, _ in self.leases)
        assert max(self.shelf.closed(), default=0) <= 1
        loaded = self.cache.loaded()
        idle = [one for one in loaded if not one.leases]
        assert sum(one.memory_bytes for one in loaded) <= 30 or len(idle) <= 1
        in_use = {id(predictor) for predictor, _ in self.leases}
        kept = {id(self.cache.peek(one.model, one.version)) for one in loaded}
        assert {id(adder) for adder in self.shelf.made if not adder.closed} == in_use | kept


TestCacheInAnyOrder = Cache.TestCase
TestCacheInAnyOrder.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
