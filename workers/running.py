"""Predictors while they run: leased from the cache, and watched for hangs."""

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

# For a load and its warm-up: runtimes bound their own loads by less, and say why. On a busy machine TensorFlow alone
# takes a minute to start, and a process that was ended for it three times would have its version refused.
LOAD_SECONDS = 240.0


@dataclass(frozen=True, slots=True)
class Running:
    """Where batches find their predictor."""

    cache: PredictorCache[Loaded]
    watchdog: Watchdog
    pools: AssignedPools

    @contextlib.contextmanager
    def loaded(self, version: Version) -> Iterator[Loaded]:
        """A version's predictor while it is used; what nobody foresaw becomes RunnerFailed: tried again, then told."""
        with _foreseen(version), contextlib.ExitStack() as stack:
            with self._noted(version):
                loaded = stack.enter_context(self.cache.lease(*version))
            yield loaded

    def load(self, version: Version) -> None:
        """Load a version before its first use; raises as `loaded` does."""
        with _foreseen(version), self._noted(version):
            self.cache.load(*version)

    def watched(self, loaded: Loaded) -> Run:
        """`run` of it, or of a further signature, with the watchdog told before and after."""

        def run(tensors: Tensors, of: Loaded | None = None, /) -> Tensors:
            number = self.watchdog.begin((loaded.model, loaded.version))
            try:
                return (of or loaded).run(tensors)
            finally:
                self.watchdog.end(number)

        return run

    @contextlib.contextmanager
    def _noted(self, version: Version) -> Iterator[None]:
        number = self.watchdog.begin(version, LOAD_SECONDS)
        try:
            yield
        finally:
            self.watchdog.end(number)


@contextlib.contextmanager
def _foreseen(version: Version) -> Iterator[None]:
    try:
        yield
    except SluiceError:
        raise
    except Exception as error:  # the batch's edge: callers would wait in vain, and a job would run for ever
        log.exception("a batch of %s failed unexpectedly", version)
        raise RunnerFailed("the prediction failed unexpectedly", code="internal") from error
