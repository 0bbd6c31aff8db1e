"""Predictors while they run: leased from the cache, watched for hangs, one inference of a version at a time."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from model_store.errors import SluiceError
from model_store.signature import Tensors
from workers.batches import Loaded, Run
from workers.errors import RunnerFailed
from workers.hot_lanes import Version
from workers.pools import AssignedPools
from workers.predictor_cache import PredictorCache
from workers.watchdog import Watchdog

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Running:
    """Where batches find their predictor."""

    cache: PredictorCache[Loaded]
    watchdog: Watchdog
    pools: AssignedPools

    @contextlib.contextmanager
    def loaded(self, version: Version) -> Iterator[Loaded]:
        """A version's predictor while it is used; what nobody foresaw becomes RunnerFailed: tried again, then told."""
        with contextlib.ExitStack() as stack:
            try:
                number = self.watchdog.begin(version)
                try:
                    loaded = stack.enter_context(self.cache.lease(*version))
                finally:
                    self.watchdog.end(number)
                yield loaded
            except SluiceError:
                raise
            except Exception as error:  # the batch's edge: callers would wait in vain, and a job would run for ever
                log.exception("a batch of %s failed unexpectedly", version)
                raise RunnerFailed("the prediction failed unexpectedly", code="internal") from error

    def watched(self, loaded: Loaded) -> Run:
        """`run` of it, or of a further signature, with the watchdog told before and after."""

        def run(tensors: Tensors, of: Loaded | None = None, /) -> Tensors:
            # One inference of a version at a time; another thread reads and formats what belongs to the next meanwhile.
            with loaded.turn:
                number = self.watchdog.begin((loaded.model, loaded.version))
                try:
                    return (of or loaded).run(tensors)
                finally:
                    self.watchdog.end(number)

        return run
