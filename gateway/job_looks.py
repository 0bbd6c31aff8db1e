"""Looks at jobs in SQL, a few at a time in threads of their own; nobody stands in line for a database that is blocked.

They shared the event loop's threads with the parsing of large bodies before, which stood behind them while a table was
locked. And each of those who waited behind others asked in vain for three seconds more: the hundredth for a minute.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from model_store.errors import DatabaseUnavailable

THREADS = 8

T = TypeVar("T")


class JobLooks:
    """Used on one event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="job-look")
        self._failures = 0

    async def take(self, look: Callable[[], T]) -> T:
        """What `look` returns, called in a thread; raises what it raises.

        Raises DatabaseUnavailable without calling it where another look came to that while this one stood in line.
        """
        failures = self._failures

        def take() -> T:
            if self._failures != failures:
                raise DatabaseUnavailable("the database does not answer; try again shortly", retry_after_seconds=1)
            try:
                return look()
            except DatabaseUnavailable:
                self._failures += 1
                raise

        return await asyncio.get_running_loop().run_in_executor(self._threads, take)

    def close(self) -> None:
        """Take no more; those in progress are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
