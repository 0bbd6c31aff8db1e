"""Keeps what a process has loaded in step with what is served: other variants, other settings, versions that ended.

One number in SQL says whether anything changed; no request asks for it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping

from model_store.database import Sessions, transaction
from model_store.errors import SluiceError
from model_store.generation import read_generation
from model_store.model_settings import Serving, load_serving
from model_store.standings import Key, Standing, standings
from monitoring.metrics import PREDICTOR_EVICTIONS
from workers.batches import Loaded
from workers.pools import AssignedPools
from workers.predictor_cache import PredictorCache

log = logging.getLogger(__name__)

# A variant that could not be loaded in place of the one that serves is tried again after so long.
AGAIN_SECONDS = 30.0
# What was loaded after it had ended is tried before it comes back, one version after the other, or late jobs run on it.
COMING_BACK_SECONDS = 60.0

Describe = Callable[[Loaded], Loaded]
"""The same predictor under what is said of its version now."""


class ServedWatch:
    """Of one process; its sessions call `look` in turn. Several at once do no harm: one looks, the others go on."""

    def __init__(
        self, sessions: Sessions, cache: PredictorCache[Loaded], pools: AssignedPools, describe: Describe
    ) -> None:
        self._sessions = sessions
        self._cache = cache
        self._pools = pools
        self._describe = describe
        self._generation = -1
        self._again_at: dict[Key, float] = {}
        # By what each was loaded; not the predictors themselves, which would stay in memory for it.
        self._compared: dict[Key, Standing | None] = {}
        self._looking = threading.Lock()

    def look(self) -> None:
        """Compare if anything changed since the last look; raises DatabaseUnavailable.

        Loads anew, which may take seconds, what is served by another variant now.
        """
        if not self._looking.acquire(blocking=False):
            return
        try:
            self._look()
        finally:
            self._looking.release()

    def _look(self) -> None:
        loaded = self._loaded()
        with transaction(self._sessions, write=False) as session:
            generation = read_generation(session)
            changed = generation != self._generation
            due = {key: one for key, one in loaded.items() if changed or self._is_due(key, one)}
            found = standings(session, due.keys())
            serving = load_serving(session) if changed else None
        if serving is not None:
            self._cache.forget_failures()
            self._settle(serving)
        for key, one in due.items():
            self._compare(key, one, found.get(key))
        self._compared = {key: one.standing for key, one in loaded.items()}
        self._again_at = {key: at for key, at in self._again_at.items() if key in loaded}
        self._generation = generation

    def _loaded(self) -> dict[Key, Loaded]:
        keys = [(one.model, one.version) for one in self._cache.loaded()]
        return {key: one for key in keys if (one := self._cache.peek(*key)) is not None}

    def _is_due(self, key: Key, loaded: Loaded) -> bool:
        """Whether nothing else changed, but this one was loaded since, perhaps as it was before the last change."""
        if self._again_at.get(key, float("inf")) <= time.monotonic():
            return True
        return key not in self._compared or self._compared[key] is not loaded.standing

    def _settle(self, serving: Mapping[str, Serving]) -> None:
        self._cache.pin([model for model, one in serving.items() if one.pinned])
        self._pools.learn({model: one.pool for model, one in serving.items() if one.pool is not None})

    def _compare(self, key: Key, loaded: Loaded, now: Standing | None) -> None:
        if now is None or self._pools.elsewhere(key[0]) or (now.ended and not self._may_come_back(key, loaded)):
            self._cache.drop(*key)
            PREDICTOR_EVICTIONS.labels("gone").inc()
        elif loaded.standing is None or now != loaded.standing:
            self._follow(key, loaded, now)

    def _may_come_back(self, key: Key, loaded: Loaded) -> bool:
        if loaded.standing is None or not loaded.standing.ended:
            return False
        now = time.monotonic()
        return self._again_at.setdefault(key, now + COMING_BACK_SECONDS) > now

    def _follow(self, key: Key, loaded: Loaded, now: Standing) -> None:
        self._again_at.pop(key, None)
        try:
            if loaded.standing is not None and now.digest == loaded.standing.digest:
                described = self._describe(loaded)
                self._cache.change(*key, lambda one: described if one is loaded else one)
            else:
                log.info("version %d of %s is loaded anew: another variant serves it now", key[1], key[0])
                self._cache.renew(*key)
        except Exception as error:  # the version's edge: others must be compared, and it not be tried every second
            # What is in memory still answers as the version did when it was proven.
            told, unforeseen = (error.message, None) if isinstance(error, SluiceError) else (repr(error), error)
            log.warning("version %d of %s serves as it was loaded: %s", key[1], key[0], told, exc_info=unforeseen)
            self._again_at[key] = time.monotonic() + AGAIN_SECONDS
