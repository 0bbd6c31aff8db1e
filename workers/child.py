"""What a prediction process keeps between its sessions: connections and loaded predictors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import redis

from model_store.artifacts import Artifacts
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.registry import served
from workers import redis_link
from workers.batches import Loaded
from workers.origin import origin_of
from workers.predictor_cache import PredictorCache
from workers.protocols.contract import Contract
from workers.publisher import Publisher
from workers.runtimes.loading import load
from workers.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Child:
    """The collaborators of all sessions of one process."""

    settings: WorkerSettings
    client: redis.Redis
    sessions: Sessions
    artifacts: Artifacts
    cache: PredictorCache[Loaded]
    publisher: Publisher


def make_child(settings: WorkerSettings, publisher: Publisher) -> Child:
    """Connect; called in the process itself, since neither connections nor threads survive a fork."""
    sessions = sessions_of(connect(settings))
    artifacts = Artifacts.of(settings)
    publisher.start()
    return Child(
        settings,
        redis_link.connect(settings),
        sessions,
        artifacts,
        PredictorCache(settings.predictor_budget_bytes, loader(settings, sessions, artifacts)),
        publisher,
    )


def loader(settings: WorkerSettings, sessions: Sessions, artifacts: Artifacts) -> Callable[[str, int], Loaded]:
    """How a version is loaded on its first use: looked up in SQL, verified by digest, warmed up."""

    def load_version(model: str, version: int) -> Loaded:
        with transaction(sessions, write=False) as session:
            found = served(session, model, version)
        predictor = load(found, artifacts, settings)
        return Loaded(
            contract=Contract(model, version, found.signature, settings.max_instances),
            predictor=predictor,
            max_batch=found.max_batch,
            max_parallelism=found.max_parallelism,
            batch_seconds=found.batch_seconds,
            batching=found.batching,
            origin=origin_of(found, settings.worker_name),
        )

    return load_version
