"""The Celery tasks, thin: run a session on a slot, prepare a version."""

from __future__ import annotations

import logging
from collections.abc import Callable

from celery import Celery

from model_store.artifacts import Artifacts
from model_store.database import connect, sessions_of
from workers.broker import DRAIN, PREPARE
from workers.child import Child
from workers.drain import Slot
from workers.preparation.pipeline import prepare
from workers.session import run_session
from workers.settings import WorkerSettings

log = logging.getLogger(__name__)


def register_drain(app: Celery, child: Callable[[], Child], stopping: Callable[[], bool]) -> None:
    """Make `app` a serving worker's: `child` gives this process's collaborators, `stopping` says when to leave."""

    @app.task(name=DRAIN)
    def drain(pool: str, slot: str, token: str) -> None:
        ending = run_session(child(), Slot(pool, slot, token), stopping)
        log.debug("session of %s ended: %s", slot, ending)


def register_prepare(app: Celery, settings: WorkerSettings) -> None:
    """Make `app` a preparing worker's."""

    @app.task(name=PREPARE)
    def prepare_version(model: str, version: int) -> None:
        sessions = sessions_of(connect(settings))
        prepare(sessions, Artifacts.of(settings), settings, model, version)
