"""Sends Celery messages from a thread of its own: publishing can block for seconds while Redis is away."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from celery import Celery
from kombu.exceptions import KombuError
from redis import RedisError

from workers.broker import BACKGROUND_QUEUE, DELIVER, DRAIN, IMPORT, PREPARE, PREPARE_QUEUE, READ_FILE
from workers.slots import queue_of, worker_of

log = logging.getLogger(__name__)

WAITING_MESSAGES = 1000


class Publisher:
    """Never blocks its callers. A message that cannot be sent is dropped: its sender repeats what still matters."""

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue(WAITING_MESSAGES)
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        try:
            self._waiting.put(None, timeout=1)
        except queue.Full:
            log.info("messages still wait to be sent; they are dropped")
        self._thread.join(timeout=3)

    def drain(self, pool: str, slot: str, token: str) -> None:
        """Start a session on a slot whose key now holds `token`."""
        self._put(lambda: self._send(DRAIN, [pool, slot, token], queue_of(pool, worker_of(slot))))

    def prepare(self, model: str, version: int) -> None:
        """Start the preparation of a version."""
        self._put(lambda: self._send(PREPARE, [model, version], PREPARE_QUEUE))

    def deliver(self, number: int, fence: int) -> None:
        """Send a webhook that was handed over under this fence."""
        self._put(lambda: self._send(DELIVER, [number, fence], BACKGROUND_QUEUE))

    def read_file(self, number: int) -> None:
        """Read a file of predictions, or go on with it."""
        self._put(lambda: self._send(READ_FILE, [number], BACKGROUND_QUEUE))

    def import_model(self, import_id: str) -> None:
        """Fetch a model from the registry."""
        self._put(lambda: self._send(IMPORT, [import_id], BACKGROUND_QUEUE))

    def _put(self, message: Callable[[], None]) -> None:
        try:
            self._waiting.put_nowait(message)
        except queue.Full:
            log.warning("too many messages wait to be sent; one was dropped and will be repeated")

    def _send(self, name: str, arguments: list[str | int], queue_name: str) -> None:
        # Without `expires`, which compares the clocks of two hosts: an outdated drain finds its token gone and returns.
        self._app.send_task(name, args=arguments, queue=queue_name, retry=False)

    def _run(self) -> None:
        while (message := self._waiting.get()) is not None:
            try:
                message()
            except (KombuError, RedisError, OSError) as error:
                log.warning("a message could not be sent: %s", type(error).__name__)
            except Exception:  # the thread's edge: without it no session would ever be started again
                log.exception("a message failed unexpectedly")
