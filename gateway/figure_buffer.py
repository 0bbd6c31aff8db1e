"""What a gateway counts about shadows and canaries, in memory until it is added to SQL's figures, once a second."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from model_store.database import Sessions, transaction
from model_store.errors import DatabaseUnavailable
from model_store.traffic_figures import Figure, Key, add_figures, bucket_of

log = logging.getLogger(__name__)

WRITE_SECONDS = 1.0
# A model with a shadow and a canary has some hundred.
MOST_KEYS = 20_000


class FigureBuffer:
    """Used on one event loop. What cannot be written is kept, and what there is no room for is lost."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._figures: dict[Key, Figure] = {}
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many figures wait to be written."""
        return len(self._figures)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep_writing())

    async def close(self) -> None:
        """Write what there is, and end.

        A write that is under way is waited for: broken off, it would be written all the same, and then once more.
        """
        self._closing.set()
        if self._task is not None:
            await self._task
        with contextlib.suppress(DatabaseUnavailable):
            await self.write()

    def count(self, key: Key, times: int = 1) -> None:
        """So many times more."""
        if times:
            self._add(key, Figure(times))

    def observe(self, key: Key, value: float) -> None:
        """One more value, from 0 on, of a histogram."""
        self._add(key._replace(bucket=bucket_of(value)), Figure(1, value))

    async def write(self) -> None:
        """Add all of it to SQL; raises DatabaseUnavailable."""
        figures, self._figures = self._figures, {}
        if not figures:
            return
        try:
            await asyncio.to_thread(self._write, figures)
        except Exception:  # put back and raised again, whatever it was
            for key, figure in figures.items():
                self._add(key, figure)
            raise

    def _write(self, figures: dict[Key, Figure]) -> None:
        with transaction(self._sessions) as session:
            add_figures(session, figures)

    def _add(self, key: Key, new: Figure) -> None:
        known = self._figures.get(key)
        if known is None:
            if len(self._figures) < MOST_KEYS:
                self._figures[key] = new
            return
        known.count += new.count
        known.largest = max(known.largest, new.largest)

    async def _keep_writing(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), WRITE_SECONDS)
            try:
                await self.write()
            except DatabaseUnavailable:
                continue  # the snapshot says so already
            except Exception:  # the task's edge: a canary would wait for ever for figures
                log.exception("figures of traffic could not be written")
