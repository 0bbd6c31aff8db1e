"""One worker process of any kind: Celery started from our settings, with its logs, metrics and signals."""

from __future__ import annotations

import ctypes
import multiprocessing.sharedctypes
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from celery import Celery, signals
from celery.utils.dispatch import Signal

from monitoring import logs, metrics
from workers.settings import ProcessSettings


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """What tells one kind of worker from another; `pool` is Celery's, `kind` stands in logs and metrics.

    `react` are functions for when the worker is `ready`, told to `stop`, or `lost` a child in the middle of a task.
    """

    kind: str
    queue: str
    pool: str
    concurrency: int
    react: dict[str, Callable[..., None]] = field(default_factory=dict)

    def run(self, app: Celery, settings: ProcessSettings) -> None:
        """Run the worker until it is told to stop."""
        kind = self.kind
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
        connections += [(names[name], reaction) for name, reaction in self.react.items()]
        for signalled, reaction in connections:
            # Not weakly: the functions live on this stack only.
            signalled.connect(reaction, weak=False)
        metrics.watch_memory(kind)
        if settings.worker_metrics_port:
            metrics.serve_metrics(settings.worker_metrics_host, settings.worker_metrics_port)
        app.worker_main(self._arguments(settings.worker_name))

    def _arguments(self, name: str) -> list[str]:
        arguments = ["--quiet", "worker", "--queues", self.queue, "--concurrency", str(self.concurrency)]
        arguments += ["--pool", self.pool, "--hostname", f"{self.queue}@{name}", "--loglevel", "WARNING"]
        return [*arguments, "--without-gossip", "--without-mingle", "--without-heartbeat", "-O", "fair"]


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


def _die_with_parent(**_: object) -> None:
    """A child whose main process was killed would serve on with nobody to stop it: it asks the kernel to end it too."""
    ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
