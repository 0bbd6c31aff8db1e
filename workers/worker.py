"""The two kinds of worker process, serving and preparing: Celery workers started from our settings."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Callable

import redis
from celery import Celery

from monitoring import logs
from workers import redis_link
from workers.broker import PREPARE_QUEUE, broker
from workers.child import Child, make_child
from workers.crashes import note_crash
from workers.lanes import Keys
from workers.publisher import Publisher
from workers.runner import detection
from workers.settings import WorkerSettings
from workers.slots import Announcer, queue_of, slots_of
from workers.tasks import register_drain, register_prepare
from workers.worker_process import Flag, WorkerProcess

log = logging.getLogger(__name__)


def serve(settings: WorkerSettings) -> None:
    """Run a serving worker until it is told to stop."""
    app = broker(settings)
    client, keys = redis_link.connect(settings), Keys(settings.key_prefix)
    stopping = Flag()
    register_drain(app, own_child(app, settings), stopping.is_set)
    processes = 1 if settings.worker_execution == "solo" else settings.worker_processes
    slots = slots_of(settings.worker_name, processes)
    announcer = Announcer(client, keys, settings.pool, slots, settings.predictor_budget_bytes)

    def ready(**_: object) -> None:
        announcer.start()

    def stop(**_: object) -> None:
        # No new work first, then the sessions: they hand back what they have not begun.
        stopping.set()
        threading.Thread(target=announcer.close, name="take-slots-back").start()

    def lost(exception: BaseException | None = None, args: tuple[str, ...] = (), **_: object) -> None:
        if type(exception).__name__ == "WorkerLostError" and len(args) > 1:
            try:
                note_crash(client, keys, settings.scratch_dir, args[1], str(exception))
            except redis.RedisError:
                log.warning("a crash could not be counted: Redis does not answer")

    react: dict[str, Callable[..., None]] = {"ready": ready, "stop": stop, "lost": lost}
    queue = queue_of(settings.pool, settings.worker_name)
    _run(WorkerProcess("worker", queue, settings.worker_execution, processes, react), app, settings)


def prepare(settings: WorkerSettings) -> None:
    """Run a preparing worker, one preparation at a time, until it is told to stop."""
    app = broker(settings)
    register_prepare(app, settings)
    _run(WorkerProcess("prepare-worker", PREPARE_QUEUE, settings.worker_execution, 1), app, settings)


def own_child(app: Celery, settings: WorkerSettings) -> Callable[[], Child]:
    """Gives each process its own collaborators, made at its first session."""
    made: dict[int, Child] = {}
    lock = threading.Lock()

    def child() -> Child:
        with lock:
            if os.getpid() not in made:
                made[os.getpid()] = make_child(settings, Publisher(app))
                # What lives now lives as long as the process: a collection that walks it stops all answers for 25 ms.
                gc.collect()
                gc.freeze()
                gc.set_threshold(50_000, 50, 100)
            return made[os.getpid()]

    return child


def _run(process: WorkerProcess, app: Celery, settings: WorkerSettings) -> None:
    logs.configure(process.kind)
    detection.announce(settings, process.kind)
    process.run(app, settings)
