"""What a prediction process keeps between its sessions: connections and loaded predictors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import redis
from sqlalchemy.orm import Session

from model_store.artifacts import Artifacts
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.registry import Served, served
from model_store.standings import Standing, standings
from workers import redis_link
from workers.batches import Loaded
from workers.decoding.file_runner import FileRunner
from workers.lanes import Keys
from workers.lookout import UseCount
from workers.origin import origin_of
from workers.pools import AssignedPools
from workers.predictor_cache import PredictorCache
from workers.protocols.contract import Contract
from workers.protocols.file_reading import FileReader
from workers.publisher import Publisher
from workers.runtimes.loading import load
from workers.runtimes.predictor import Predictor
from workers.runtimes.tensorflow import RunnerPredictor
from workers.served_watch import ServedWatch
from workers.settings import WorkerSettings
from workers.statistics_telling import StatisticsTelling
from workers.tallies import Tallies


@dataclass(frozen=True, slots=True)
class Child:
    """The collaborators of all sessions of one process."""

    settings: WorkerSettings
    client: redis.Redis
    sessions: Sessions
    artifacts: Artifacts
    cache: PredictorCache[Loaded]
    publisher: Publisher
    pools: AssignedPools
    watch: ServedWatch
    uses: UseCount
    statistics: StatisticsTelling


def make_child(settings: WorkerSettings, publisher: Publisher) -> Child:
    """Connect; called in the process itself, since neither connections nor threads survive a fork."""
    sessions = sessions_of(connect(settings))
    artifacts = Artifacts.of(settings)
    publisher.start()

    def expect(found: Served) -> None:
        cache.expect(found.model, found.number, found.memory_bytes)

    files = FileRunner(settings)
    tallies = Tallies()
    load_version = loader(settings, sessions, artifacts, files, expect, tallies)
    cache = PredictorCache(settings.predictor_budget_bytes, load_version)
    pools = AssignedPools(settings.pool)
    return Child(
        settings,
        redis_link.connect(settings),
        sessions,
        artifacts,
        cache,
        publisher,
        pools,
        ServedWatch(sessions, cache, pools, describer(settings, sessions, files)),
        UseCount(cache),
        StatisticsTelling(Keys(settings.key_prefix), tallies),
    )


def loader(
    settings: WorkerSettings,
    sessions: Sessions,
    artifacts: Artifacts,
    files: FileReader,
    expect: Callable[[Served], None],
    tallies: Tallies,
) -> Callable[[str, int], Loaded]:
    """How a version is loaded on its first use: looked up in SQL, verified by digest, warmed up.

    `expect` is told before it takes memory; what it runs is counted in `tallies`.
    """

    def load_version(model: str, version: int) -> Loaded:
        with transaction(sessions, write=False) as session:
            found, standing = _served(session, model, version)
        expect(found)
        loaded = _loaded(found, standing, load(found, artifacts, settings), settings, files)
        return replace(loaded, tallies=tallies)

    return load_version


def describer(settings: WorkerSettings, sessions: Sessions, files: FileReader) -> Callable[[Loaded], Loaded]:
    """How a loaded version is described anew after its model's settings changed, with the predictor that it has."""

    def describe(loaded: Loaded) -> Loaded:
        with transaction(sessions, write=False) as session:
            found, standing = _served(session, loaded.model, loaded.version)
        described = _loaded(found, standing, loaded.predictor, settings, files)
        return replace(described, turn=loaded.turn, tallies=loaded.tallies)

    return describe


def _served(session: Session, model: str, version: int) -> tuple[Served, Standing | None]:
    # The standing first: one that is too old is found out by the next look, one that is too new never.
    standing = standings(session, [(model, version)]).get((model, version))
    return served(session, model, version), standing


def _loaded(
    found: Served, standing: Standing | None, predictor: Predictor, settings: WorkerSettings, files: FileReader
) -> Loaded:
    contract = contract_of(found, settings, files)
    further = _further(found, predictor, contract)
    return Loaded(
        contract=replace(contract, further={name: one.contract for name, one in further.items()}),
        predictor=predictor,
        max_batch=found.max_batch,
        max_parallelism=found.max_parallelism,
        batch_seconds=found.batch_seconds,
        batching=found.batching,
        origin=origin_of(found, settings.worker_name),
        standing=standing,
        further=further,
    )


def _further(found: Served, predictor: Predictor, contract: Contract) -> dict[str, Loaded]:
    """Its further signatures, as far as they were loaded with it; no time was taken of their batches."""
    known = predictor.further if isinstance(predictor, RunnerPredictor) else {}
    return {
        one.signature.name: Loaded(
            contract.further[one.signature.name],
            known[one.signature.name],
            one.max_batch,
            found.max_parallelism,
            batch_seconds=None,
        )
        for one in found.further.listed
        if one.signature.name in known
    }


def contract_of(found: Served, settings: WorkerSettings, files: FileReader) -> Contract:
    """The terms by which a version's requests are read."""
    allowed = found.serving.instances(settings.max_instances)
    return Contract(
        found.model,
        found.number,
        found.signature,
        allowed,
        found.metadata.class_names or (),
        found.metadata.input_specification,
        files,
    ).with_further(found.further)
