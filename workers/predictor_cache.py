"""Loaded predictors of one process, under a memory budget: the one that was used least leaves first.

Uses count, and age: each eviction raises the rank from which later uses count, to that of the one that left (Arlitt and
others 2000, "Evaluating content management techniques for web proxy caches": greedy dual by frequency). Of 500 models
with room for 200, asked for by Zipf's law (exponent 1), 84 % of the requests find theirs in memory, and 80 % where the
one that was used longest ago leaves; 77 instead of 72 % where somebody runs through all models now and then.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from typing import Generic, TypeVar

from monitoring.metrics import (
    LOADED_PREDICTORS,
    PINNED_PREDICTOR_BYTES,
    PREDICTOR_BUDGET_BYTES,
    PREDICTOR_BYTES,
    PREDICTOR_EVICTIONS,
)
from workers.cached_predictors import CacheFigures, Entry, LoadedPredictor
from workers.errors import EnvironmentMismatch, PredictorTooLarge
from workers.runtimes.predictor import Predictor

Key = tuple[str, int]
P = TypeVar("P", bound=Predictor)

# A version that cannot be loaded would otherwise be tried by each of the requests that wait for it.
FAILURE_SECONDS = 1.0
# What this process computes otherwise it will compute otherwise in a second too, and loading it may take seconds.
MISMATCH_SECONDS = 60.0
MOST_FAILURES = 1000


class PredictorCache(Generic[P]):
    """Predictors by model and version; safe to use from several threads.

    `load` makes a predictor and may take seconds: it runs without a lock, so that different versions load side by
    by side. The budget may be exceeded for as long as leases leave nothing to evict. Pinned models stay, unless they
    exceed the budget by themselves.
    """

    def __init__(self, budget_bytes: int, load: Callable[[str, int], P]) -> None:
        self._budget_bytes = budget_bytes
        self._load = load
        self._lock = threading.Lock()  # held for moments only, never while loading or closing
        self._entries: dict[Key, Entry[P]] = {}
        self._loading: dict[Key, Future[None]] = {}
        self._failures: dict[Key, tuple[float, Exception]] = {}
        self._bytes = 0
        self._expected: dict[Key, int] = {}  # what versions that are being loaded will take
        self._uses = itertools.count()
        self._pinned: frozenset[str] = frozenset()
        self._floor = 0.0
        self._hits = self._misses = self._loads = self._evictions = 0
        self._load_seconds = 0.0
        PREDICTOR_BUDGET_BYTES.set(budget_bytes)

    def peek(self, model: str, version: int) -> P | None:
        """The predictor if it is loaded; never blocks, and is no use of it."""
        entry = self._entries.get((model, version))
        return None if entry is None else entry.predictor

    def used(self, model: str, version: int) -> None:
        """Note that a batch was run with a predictor that `peek` gave."""
        entry = self._entries.get((model, version))
        if entry is not None:
            with self._lock:
                self._count_found(entry, missed=False)

    def get(self, model: str, version: int) -> P:
        """The predictor, loaded if need be; whoever asks meanwhile waits for the same load.

        It may be evicted, and closed, by another thread at any time: use `lease` where that matters. Raises what
        `load` raises, also for a second after it failed, or a minute after EnvironmentMismatch, and PredictorTooLarge.
        """
        return self._obtain((model, version)).predictor

    def load(self, model: str, version: int) -> None:
        """Load a version for a use to come, which counts as the one that missed it; raises as `get`."""
        if self.peek(model, version) is None:
            self._obtain((model, version)).fresh = True

    def renew(self, model: str, version: int) -> None:
        """Load a version anew beside the predictor that serves, which leaves once the new one is there.

        Does nothing for a version that is not loaded. Raises what `load` raises; then the old one stays.
        """
        key = (model, version)
        with self._lock:
            if key not in self._entries or key in self._loading:
                return
            loading = self._loading[key] = Future()
        if self._load_entry(key, loading, leases=0) is not None:
            PREDICTOR_EVICTIONS.labels("changed").inc()

    def change(self, model: str, version: int, make: Callable[[P], P]) -> None:
        """Put another description of the same predictor in its place, of the same size; where it is loaded."""
        with self._lock:
            entry = self._entries.get((model, version))
            if entry is not None:
                entry.predictor = make(entry.predictor)

    def expect(self, model: str, version: int, memory_bytes: int) -> None:
        """Make room for a version that is about to be loaded, before it takes it; to be called by `load`."""
        with self._lock:
            if (model, version) not in self._loading:
                return
            self._expected[model, version] = memory_bytes
            leaving = self._evict()
        _close(leaving)

    def pin(self, models: Collection[str]) -> None:
        """Keep these models' versions from now on, and no others."""
        with self._lock:
            self._pinned = frozenset(models)
            self._count(0)
            leaving = self._evict()
        _close(leaving)

    @contextlib.contextmanager
    def lease(self, model: str, version: int) -> Iterator[P]:
        """The predictor as by `get`, which stays open until the block ends."""
        entry = self._obtain((model, version), lease=True)
        try:
            yield entry.predictor
        finally:
            self._release(entry)

    def drop(self, model: str, version: int) -> None:
        """Forget a version, also one that is being loaded."""
        key = (model, version)
        with self._lock:
            self._loading.pop(key, None)
            self._expected.pop(key, None)
            self._failures.pop(key, None)
            leaving = self._retire([key] if key in self._entries else [])
        _close(leaving)

    def forget_failures(self) -> None:
        """Let what could not be loaded be tried again at once: something else may be served now."""
        with self._lock:
            self._failures.clear()

    def loaded(self) -> list[LoadedPredictor]:
        """What is in the cache, most used first."""
        with self._lock:
            entries = sorted(self._entries.items(), key=lambda pair: pair[1].rank, reverse=True)
            return [
                LoadedPredictor(
                    *key,
                    entry.predictor.runtime,
                    entry.predictor.memory_bytes,
                    entry.leases,
                    entry.uses,
                    key[0] in self._pinned,
                )
                for key, entry in entries
            ]

    def figures(self) -> CacheFigures:
        with self._lock:
            return CacheFigures(
                budget_bytes=self._budget_bytes,
                memory_bytes=self._bytes,
                pinned_bytes=self._pinned_bytes(),
                hits=self._hits,
                misses=self._misses,
                loads=self._loads,
                load_seconds=self._load_seconds,
                evictions=self._evictions,
            )

    def close(self) -> None:
        """Drop everything."""
        with self._lock:
            keys = [*self._entries, *self._loading]
        for key in keys:
            self.drop(*key)

    def _obtain(self, key: Key, *, lease: bool = False) -> Entry[P]:
        missed = False
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None:
                    self._count_found(entry, missed=missed)
                    entry.leases += lease
                    return entry
                self._misses += not missed
                missed = True
                under_way = self._loading.get(key)
                if under_way is None:
                    self._raise_recent_failure(key)
                    loading = self._loading[key] = Future()
            if under_way is not None:
                under_way.result()  # raises what the load raised; otherwise the entry is there now
            elif (entry := self._load_entry(key, loading, leases=int(lease))) is not None:
                return entry

    def _load_entry(self, key: Key, loading: Future[None], leases: int) -> Entry[P] | None:
        """Load and insert, with the loader's own lease; None where the version was dropped meanwhile."""
        begun = time.monotonic()
        try:
            entry: Entry[P] = Entry(self._load_fitting(key), next(self._uses), leases=leases)
        except BaseException as error:  # whatever it was, those who wait for this load must be told
            with self._lock:
                if self._loading.get(key) is loading:
                    del self._loading[key]
                    self._expected.pop(key, None)
                    if isinstance(error, Exception):
                        self._note_failure(key, error)
            loading.set_exception(error)
            raise
        with self._lock:
            wanted = self._loading.get(key) is loading
            if wanted:
                del self._loading[key]
                self._expected.pop(key, None)
                self._failures.pop(key, None)
                self._loads += 1
                self._load_seconds += time.monotonic() - begun
                replaced = self._entries.get(key)
                leaving = self._retire([key] if replaced is not None else [])
                self._note_use(entry, replaced.uses if replaced is not None else 0)
                self._entries[key] = entry
                self._count(entry.predictor.memory_bytes)
            leaving = [*leaving, *self._evict(keep=entry)] if wanted else [entry]
        loading.set_result(None)
        _close(leaving)
        return entry if wanted else None

    def _load_fitting(self, key: Key) -> P:
        predictor = self._load(*key)
        if predictor.memory_bytes > self._budget_bytes:
            predictor.close()
            raise PredictorTooLarge.by(predictor.memory_bytes, self._budget_bytes)
        return predictor

    def _note_failure(self, key: Key, error: Exception) -> None:
        now = time.monotonic()
        # Names come from Redis, whatever they name: what is over would stay, with all that its traceback holds.
        self._failures = {other: known for other, known in self._failures.items() if known[0] > now}
        if len(self._failures) < MOST_FAILURES:
            self._failures[key] = (now + _remembered_seconds(error), error)

    def _raise_recent_failure(self, key: Key) -> None:
        until, error = self._failures.get(key, (0.0, None))
        if error is not None and time.monotonic() < until:
            raise error.with_traceback(None)  # each raise would lengthen it

    def _release(self, entry: Entry[P]) -> None:
        with self._lock:
            entry.leases -= 1
            leaving = self._evict()
            if entry.retired and not entry.leases and entry not in leaving:
                leaving.append(entry)
        _close(leaving)

    def _count_found(self, entry: Entry[P], *, missed: bool) -> None:
        if entry.fresh:
            entry.fresh = False
            return
        self._hits += not missed
        self._note_use(entry)

    def _note_use(self, entry: Entry[P], before: int = 0) -> None:
        entry.used, entry.floor = next(self._uses), self._floor
        entry.uses += before + 1

    def _evict(self, keep: Entry[P] | None = None) -> list[Entry[P]]:
        """Retire idle entries, least used first, until the rest fits; returns those to close."""
        remaining = self._bytes + sum(self._expected.values())
        if remaining <= self._budget_bytes:
            return []
        pins_fit = self._pinned_bytes() <= self._budget_bytes
        idle = [
            (key[0] in self._pinned, entry.rank, key, entry)
            for key, entry in self._entries.items()
            if not entry.leases and entry is not keep and not (pins_fit and key[0] in self._pinned)
        ]
        chosen = []
        for pinned, rank, key, entry in sorted(idle, key=lambda one: one[:2]):
            if remaining <= self._budget_bytes:
                break
            chosen.append(key)
            remaining -= entry.predictor.memory_bytes
            self._evictions += 1
            self._floor = max(self._floor, rank[0])
            PREDICTOR_EVICTIONS.labels("pinned" if pinned else "room").inc()
        return self._retire(chosen)

    def _pinned_bytes(self) -> int:
        if not self._pinned:
            return 0
        return sum(entry.predictor.memory_bytes for key, entry in self._entries.items() if key[0] in self._pinned)

    def _retire(self, keys: list[Key]) -> list[Entry[P]]:
        entries = [self._entries.pop(key) for key in keys]
        for entry in entries:
            entry.retired = True
            self._count(-entry.predictor.memory_bytes)
        return [entry for entry in entries if not entry.leases]

    def _count(self, change_bytes: int) -> None:
        self._bytes += change_bytes
        LOADED_PREDICTORS.set(len(self._entries))
        PREDICTOR_BYTES.set(self._bytes)
        PINNED_PREDICTOR_BYTES.set(self._pinned_bytes())


def _remembered_seconds(error: Exception) -> float:
    return MISMATCH_SECONDS if isinstance(error, EnvironmentMismatch) else FAILURE_SECONDS


def _close(entries: list[Entry[P]]) -> None:
    # Outside the lock: a predictor in a runner waits for its last call.
    for entry in entries:
        entry.predictor.close()
