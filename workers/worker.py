"""The two kinds of worker process, serving and preparing: Celery workers started from our settings."""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing.sharedctypes
import os
import signal
import threading
from collections.abc import Callable

import redis
from celery import Celery, signals
from celery.utils.dispatch import Signal

from monitoring import logs, metrics
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

log = logging.getLogger(__name__)


def serve(settings: WorkerSettings) -> None:
    """Run a serving worker until it is told to stop."""
    app = broker(settings)
    client, keys = redis_link.connect(settings), Keys(settings.key_prefix)
    stopping = Flag()
    register_drain(app, own_child(app, settings), stopping.is_set)
    processes = 1 if settings.worker_execution == "solo" else settings.worker_processes
    announcer = Announcer(client, keys, settings.pool, slots_of(settings.worker_name, processes))

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

    _run(
        "worker",
        app,
        settings,
        queue_of(settings.pool, settings.worker_name),
        processes,
        {"ready": ready, "stop": stop, "lost": lost},
    )


def prepare(settings: WorkerSettings) -> None:
    """Run a preparing worker, one preparation at a time, until it is told to stop."""
    app = broker(settings)
    register_prepare(app, settings)
    _run("prepare-worker", app, settings, PREPARE_QUEUE, 1, {})


class Flag:
    """Says one thing to this process and to those forked from it later.

    An Event would do so under a lock, which a child that is killed while it looks would keep for ever, and which a
    signal's handler would wait for in the very thread that holds it.
    """

    def __init__(self) -> None:
        self._shared = multiprocessing.sharedctypes.RawValue(ctypes.c_bool, False)

    def set(self) -> None:
        self._shared.value = True

    def is_set(self) -> bool:
        return bool(self._shared.value)


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


def _run(
    kind: str, app: Celery, settings: WorkerSettings, queue: str, processes: int, react: dict[str, Callable[..., None]]
) -> None:
    logs.configure(kind)

    def set_up_logging(**_: object) -> None:
        # Celery leaves logging alone where somebody answers this signal.
        logs.configure(kind)

    def watch_child(**_: object) -> None:
        metrics.watch_memory(kind)

    def child_gone(sender: object = None, pid: int | None = None, **_: object) -> None:  # noqa: ARG001 - Celery's signature
        if pid is not None:
            metrics.forget_process(pid)

    connections: list[tuple[Signal, Callable[..., None]]] = [
        (signals.setup_logging, set_up_logging),
        (signals.worker_process_shutdown, child_gone),
        (signals.worker_process_init, _die_with_parent),
        (signals.worker_process_init, watch_child),
    ]
    names = {"ready": signals.worker_ready, "stop": signals.worker_shutting_down, "lost": signals.task_failure}
    connections += [(names[name], reaction) for name, reaction in react.items()]
    for signalled, reaction in connections:
        # Not weakly: the functions live on this stack only.
        signalled.connect(reaction, weak=False)
    metrics.watch_memory(kind)
    detection.announce(settings, kind)
    if settings.worker_metrics_port:
        metrics.serve_metrics(settings.worker_metrics_host, settings.worker_metrics_port)
    arguments = [
        "--quiet",
        "worker",
        "--queues",
        queue,
        "--concurrency",
        str(processes),
        "--pool",
        settings.worker_execution,
    ]
    arguments += ["--hostname", f"{queue}@{settings.worker_name}", "--loglevel", "WARNING"]
    arguments += ["--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair"]
    app.worker_main(arguments)


def _die_with_parent(**_: object) -> None:
    """A child whose main process was killed would serve on with nobody to stop it: it asks the kernel to end it too."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
