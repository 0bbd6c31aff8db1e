"""Places for hashing passwords: few, with threads of their own, so that a flood of sign-ins stops nothing else."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread

from auth.errors import PasswordsBusy

PARALLEL = 2
MOST_WAITING = 20

Result = TypeVar("Result")


class PasswordPlaces:
    """Runs what hashes passwords: 64 MiB and about 0.1 s of a processor each.

    On FastAPI's own threads, of which there are 40, waiting sign-ins would keep everybody else out of the database.
    """

    def __init__(self, parallel: int = PARALLEL, most_waiting: int = MOST_WAITING) -> None:
        self._limiter = anyio.CapacityLimiter(parallel)
        self._most_waiting = most_waiting

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """What the function returns, called in a thread; raises PasswordsBusy at once where too many wait already."""
        if self._limiter.statistics().tasks_waiting >= self._most_waiting:
            raise PasswordsBusy("too many passwords are being checked; try again shortly", retry_after_seconds=2)
        return await anyio.to_thread.run_sync(functools.partial(function, *arguments), limiter=self._limiter)
