"""Warming up: a version that is about to serve is loaded, and tried, on the slot that its callers will be sent to.

What is tried are its golden samples, whose answers are known to be good, and the requests that administrators gave for
its model; a version without samples is asked for a row of zeros, which is enough to have it loaded.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

from model_store import golden
from model_store.artifacts import Artifacts
from model_store.database import Sessions, transaction
from model_store.errors import SluiceError
from model_store.model_settings import settings_of
from model_store.registry import Served, served
from model_store.signature import Tensors
from workers.broker import broker
from workers.protocols.body import Body
from workers.protocols.open_inference_caller import write_request
from workers.publisher import Publisher
from workers.rehearsal import NobodyServes, Rehearsal, RehearsalFailed, RehearsalLate, Stage
from workers.runtimes.blanks import blank
from workers.settings import QueueSettings

log = logging.getLogger(__name__)

# A SavedModel of most of a gigabyte loads in ten.
WARM_SECONDS = 30.0
MOST_REQUESTS = 1000
TRIES = 4
PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Warmed:
    """What came of it; `slot` is None where the version serves cold, and `told` says why in a sentence."""

    told: str
    slot: str | None = None
    requests: int = 0
    seconds: float = 0.0


def stage_of(found: Served, settings: QueueSettings) -> Stage:
    """Where the version runs."""
    return Stage(found.model, found.number, found.serving.pool or settings.pool)


def golden_samples(artifacts: Artifacts, digest: str) -> tuple[Tensors, Tensors]:
    """Inputs and outputs; raises the store's errors, and GoldenInvalid."""
    with artifacts.opened(digest) as path:
        return golden.unpack(path.read_bytes())


def warm_up(
    sessions: Sessions,
    artifacts: Artifacts,
    settings: QueueSettings,
    model: str,
    number: int,
    seconds: float = WARM_SECONDS,
) -> Warmed:
    """Has a prepared version loaded and tried, in whatever state it is; takes no longer than `seconds`.

    Where no worker is announced, or none answers in time, the version is as good as before, but cold. Raises
    RehearsalFailed where it fails on its own golden samples, and ModelNotFound.
    """
    with transaction(sessions, write=False) as session:
        found = served(session, model, number)
        requests = settings_of(session, model).warm_up[:MOST_REQUESTS]
    with _publishing(settings) as publisher, Rehearsal(settings, publisher, stage_of(found, settings)) as rehearsal:
        return _WarmUp(rehearsal, time.monotonic() + seconds).run(_first(found, artifacts), requests)


class _WarmUp:
    """One warm-up, which ends at a moment of this process's clock."""

    def __init__(self, rehearsal: Rehearsal, until: float) -> None:
        self._rehearsal = rehearsal
        self._until = until
        self._begun = time.monotonic()

    def run(self, first: tuple[Body, bool], requests: tuple[str, ...]) -> Warmed:
        body, must_succeed = first
        try:
            slot = self._load(body, must_succeed)
        except NobodyServes as error:
            return Warmed(f"not warmed up: {error}; its first call loads it")
        except RehearsalLate as error:
            return Warmed(f"not warmed up: {error}; it serves all the same")
        tried, failed = self._try(requests)
        seconds = time.monotonic() - self._begun
        told = f"{slot} loaded it and answered {1 + tried} request{'s' * (tried > 0)} in {seconds:.2f} s"
        if failed:
            told += f"; {len(failed)} of the model's warm-up requests failed, the first with {failed[0]}"
        return Warmed(told, slot, 1 + tried, seconds)

    def _load(self, body: Body, must_succeed: bool) -> str:
        for left in reversed(range(TRIES)):
            try:
                return self._rehearsal.ask(body, self._left()).slot
            except RehearsalFailed as error:
                # A worker that died or a store that is away says nothing of the version: it gets a few seconds.
                if left and error.passing and self._left() > PAUSE_SECONDS:
                    time.sleep(PAUSE_SECONDS)
                    continue
                if must_succeed:
                    raise
                # Zeros need not be what a model takes; it was loaded all the same, or its callers are told why not.
                log.info("a blank sample failed: %s", error)
                break
        return "a worker"

    def _try(self, requests: tuple[str, ...]) -> tuple[int, list[str]]:
        failed: list[str] = []
        tried = 0
        for text in requests:
            try:
                self._rehearsal.ask(Body(text.encode()), self._left())
            except RehearsalFailed as error:
                failed.append(str(error))
            except (NobodyServes, RehearsalLate):
                break
            tried += 1
        return tried, failed

    def _left(self) -> float:
        return max(0.0, self._until - time.monotonic())


def _first(found: Served, artifacts: Artifacts) -> tuple[Body, bool]:
    """The request by which a version is loaded, and whether it is known to be good."""
    if found.golden_digest is not None:
        try:
            return write_request(golden_samples(artifacts, found.golden_digest)[0], found.signature), True
        except (SluiceError, golden.GoldenInvalid, KeyError) as error:
            log.warning("the golden samples of %s %d cannot be read: %s", found.model, found.number, error)
    return write_request(blank(found.signature, 1), found.signature), False


@contextlib.contextmanager
def _publishing(settings: QueueSettings) -> Iterator[Publisher]:
    publisher = Publisher(broker(settings))
    publisher.start()
    try:
        yield publisher
    finally:
        publisher.close()
