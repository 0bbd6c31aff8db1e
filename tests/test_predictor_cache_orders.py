"""The predictor cache under any order of uses, and under many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.predictor_shelf import Adder, Shelf
from workers.predictor_cache import PredictorCache


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

    @rule(models=st.sets(st.sampled_from("abc"), max_size=1))
    def pin(self, models: set[str]) -> None:
        # At most two versions of the largest model: more than the budget, so that pins leave, too.
        self.cache.pin(models)

    @rule(model=st.sampled_from("abc"), version=st.integers(1, 2))
    def renew(self, model: str, version: int) -> None:
        self.cache.renew(model, version)

    @rule(model=st.sampled_from("abc"), version=st.integers(1, 2))
    def use(self, model: str, version: int) -> None:
        self.cache.used(model, version)

    @invariant()
    def it_holds(self) -> None:
        assert not any(predictor.closed for predictor, _ in self.leases)
        assert max(self.shelf.closed(), default=0) <= 1
        loaded = self.cache.loaded()
        idle = [one for one in loaded if not one.leases and not one.pinned]
        assert sum(one.memory_bytes for one in loaded) <= 30 or len(idle) <= 1
        in_use = {id(predictor) for predictor, _ in self.leases}
        kept = {id(self.cache.peek(one.model, one.version)) for one in loaded}
        assert self.cache.figures().memory_bytes == sum(one.memory_bytes for one in loaded)
        assert {id(adder) for adder in self.shelf.made if not adder.closed} == in_use | kept


TestCacheInAnyOrder = Cache.TestCase
TestCacheInAnyOrder.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
