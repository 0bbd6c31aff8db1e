"""The lookout of a session: a thread that keeps predictors as they are served, and says what is loaded and counted."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import redis

from model_store.errors import DatabaseUnavailable
from monitoring.metrics import PREDICTOR_USES
from workers.batches import Loaded
from workers.lanes import Keys
from workers.loaded_versions import announcement
from workers.predictor_cache import PredictorCache
from workers.redis_link import Wire
from workers.served_watch import ServedWatch
from workers.statistics_telling import StatisticsTelling

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0


@dataclass(slots=True)
class UseCount:
    """How much of a cache's uses was told to the metrics; each use once, whichever session of the process tells it."""

    cache: PredictorCache[Loaded]
    _hits: int = 0
    _misses: int = 0
    _telling: threading.Lock = field(default_factory=threading.Lock)

    def tell(self) -> None:
        with self._telling:
            figures = self.cache.figures()
            PREDICTOR_USES.labels("hit").inc(figures.hits - self._hits)
            PREDICTOR_USES.labels("miss").inc(figures.misses - self._misses)
            self._hits, self._misses = figures.hits, figures.misses


class Lookout:
    """Looks at once and then every second until closed."""

    def __init__(
        self,
        client: redis.Redis,
        keys: Keys,
        slot: tuple[str, str],
        watch: ServedWatch,
        uses: UseCount,
        statistics: StatisticsTelling,
    ) -> None:
        self._wire = Wire(client)
        self._keys = keys
        self._pool, self._slot = slot
        self._watch = watch
        self._uses = uses
        self._statistics = statistics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop, after telling once more: what is loaded stays so, and may be rung for."""
        self._stop.set()
        self._thread.join(timeout=3)

    def _run(self) -> None:
        while True:
            last = self._stop.is_set()
            self._attempt(self._tell)
            if last:
                self._wire.close()
                return
            # Also where Redis takes no figures: it may be full while what is served changes.
            self._attempt(self._watch.look)
            self._stop.wait(LOOK_SECONDS)

    def _tell(self) -> None:
        self._uses.tell()
        self._announce()
        self._statistics.tell(self._wire)

    @staticmethod
    def _attempt(step: Callable[[], None]) -> None:
        try:
            step()
        except (DatabaseUnavailable, redis.RedisError) as error:
            log.info("what is loaded is not told or compared now: %s", type(error).__name__)
        except Exception:  # the thread's edge: predictors would stay as they are whatever is served
            log.exception("what is loaded could not be told, or compared with what is served")

    def _announce(self) -> None:
        cache = self._uses.cache
        self._wire.execute(
            announcement(self._keys, self._pool, [self._slot], os.getpid(), cache.loaded(), cache.figures())
        )
