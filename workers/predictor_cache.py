"""Loaded predictors of one process, under a memory budget: the one that was used longest ago leaves first."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from monitoring.metrics import LOADED_PREDICTORS, PREDICTOR_BYTES
from workers.errors import PredictorTooLarge
from workers.runtimes.predictor import Predictor

Key = tuple[str, int]
P = TypeVar("P", bound=Predictor)

# A version that cannot be loaded would otherwise be tried by each of the requests that wait for it.
FAILURE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class LoadedPredictor:
    """What is in the cache, for heartbeats and listings."""

    model: str
    version: int
    runtime: str
    memory_bytes: int
    leases: int


@dataclass(slots=True, eq=False)
class Entry(Generic[P]):
    """A predictor in the cache; once `retired` it is in it no more, and closed as soon as nobody leases it."""

    predictor: P
    used: int
    leases: int = 0
    retired: bool = False


class PredictorCache(Generic[P]):
    """Predictors by model and version; safe to use from several threads.

    `load` makes a predictor and may take seconds: it runs without a lock, so that different versions load side by
    side. The budget may be exceeded for as long as leases leave nothing to evict.
    """

    def __init__(self, budget_bytes: int, load: Callable[[str, int], P]) -> None:
        self._budget_bytes = budget_bytes
        self._load = load
        self._lock = threading.Lock()  # held for moments only, never while loading or closing
        self._entries: dict[Key, Entry[P]] = {}
        self._loading: dict[Key, Future[None]] = {}
        self._failures: dict[Key, tuple[float, Exception]] = {}
        self._bytes = 0
        self._uses = itertools.count()

    def peek(self, model: str, version: int) -> P | None:
        """The predictor if it is loaded; never blocks."""
        entry = self._entries.get((model, version))
        if entry is None:
            return None
        entry.used = next(self._uses)
        return entry.predictor

    def get(self, model: str, version: int) -> P:
        """The predictor, loaded if need be; whoever asks meanwhile waits for the same load.

        It may be evicted, and closed, by another thread at any time: use `lease` where that matters. Raises what
        `load` raises, also for a second after it failed, and PredictorTooLarge.
        """
        return self._obtain((model, version)).predictor

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
            self._failures.pop(key, None)
            leaving = self._retire([key] if key in self._entries else [])
        _close(leaving)

    def loaded(self) -> list[LoadedPredictor]:
        with self._lock:
            return [
                LoadedPredictor(*key, entry.predictor.runtime, entry.predictor.memory_bytes, entry.leases)
                for key, entry in self._entries.items()
            ]

    def close(self) -> None:
        """Drop everything."""
        with self._lock:
            keys = [*self._entries, *self._loading]
        for key in keys:
            self.drop(*key)

    def _obtain(self, key: Key, *, lease: bool = False) -> Entry[P]:
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None:
                    entry.used = next(self._uses)
                    entry.leases += lease
                    return entry
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
        try:
            entry: Entry[P] = Entry(self._load_fitting(key), next(self._uses), leases)
        except BaseException as error:  # whatever it was, those who wait for this load must be told
            with self._lock:
                if self._loading.get(key) is loading:
                    del self._loading[key]
                    if isinstance(error, Exception):
                        self._failures[key] = (time.monotonic() + FAILURE_SECONDS, error)
            loading.set_exception(error)
            raise
        with self._lock:
            wanted = self._loading.get(key) is loading
            if wanted:
                del self._loading[key]
                self._failures.pop(key, None)
                self._entries[key] = entry
                self._count(entry.predictor.memory_bytes)
            leaving = self._evict(keep=entry) if wanted else [entry]
        loading.set_result(None)
        _close(leaving)
        return entry if wanted else None

    def _load_fitting(self, key: Key) -> P:
        predictor = self._load(*key)
        if predictor.memory_bytes > self._budget_bytes:
            predictor.close()
            raise PredictorTooLarge("the model needs more memory than this worker has for models")
        return predictor

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

    def _evict(self, keep: Entry[P] | None = None) -> list[Entry[P]]:
        """Retire idle entries, longest unused first, until the rest fits; returns those to close."""
        if self._bytes <= self._budget_bytes:
            return []
        idle = [(key, entry) for key, entry in self._entries.items() if not entry.leases and entry is not keep]
        remaining = self._bytes
        chosen = []
        for key, entry in sorted(idle, key=lambda pair: pair[1].used):
            if remaining <= self._budget_bytes:
                break
            chosen.append(key)
            remaining -= entry.predictor.memory_bytes
        return self._retire(chosen)

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


def _close(entries: list[Entry[P]]) -> None:
    # Outside the lock: a predictor in a runner waits for its last call.
    for entry in entries:
        entry.predictor.close()
