"""What the statistics extension tells: figures of the whole installation, to which this gateway adds its own.

Source: docs/protocol/extension_statistics.md of Triton's server. How predictions ended, and how long they took in all,
is counted here; workers count what they ran, and the jobs that they ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import hiredis

from gateway.submission import Submission
from gateway.wire import unavailable
from model_store.errors import SluiceError
from workers.kept_statistics import TALLIES_A_TIME, additions, question, tally_of
from workers.lanes import Keys
from workers.tallies import Tallies, Tally, Version

log = logging.getLogger(__name__)

TELL_SECONDS = 1.0
# Of thousands of versions, the figures are read in pieces, between which predictions are served.
READ_A_TIME = 64


class InferenceStatistics:
    """Figures by model and version. All of it runs on the gateway's event loop."""

    def __init__(self, submission: Submission, keys: Keys) -> None:
        self._submission = submission
        self._keys = keys
        self._tallies = Tallies()
        # One reader at a time: of all versions together, it is more than any other request asks of Redis.
        self._reading = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    async def start(self) -> None:
        self._task = asyncio.create_task(self._keep_telling())

    async def close(self) -> None:
        """Tell what there is, and end."""
        self._closing.set()
        if self._task is not None:
            await self._task
        with contextlib.suppress(SluiceError):
            await self.tell()

    def count(self, version: Version, status: int, seconds: float) -> None:
        """One prediction that was let in: its answer's status, and how long it took."""
        self._tallies.ended(version, succeeded=status == 200, nanoseconds=round(seconds * 1e9))

    async def of(self, versions: Sequence[Version]) -> list[Tally]:
        """The figures of versions, with all that this gateway has counted; all 0 where nobody asked one for a week.

        Raises QueueUnavailable.
        """
        async with self._reading:
            await self.tell()
            found: list[Tally] = []
            for start in range(0, len(versions), READ_A_TIME):
                asked = [question(self._keys, version) for version in versions[start : start + READ_A_TIME]]
                found += map(tally_of, await self._submission.ask(asked))
            return found

    async def tell(self) -> None:
        """Add to Redis's figures what was counted since; raises QueueUnavailable, and tells it the next time then.

        Whoever is canceled meanwhile has sent it: that is not told again.
        """
        for _ in range(self._tallies.takes(TALLIES_A_TIME)):
            told = self._tallies.take(TALLIES_A_TIME)
            try:
                reply = (await self._submission.ask(additions(self._keys, told)))[-1]
            except Exception:  # given back and raised again, whatever it was
                self._tallies.give_back(told)
                raise
            if isinstance(reply, hiredis.ReplyError):
                log.error("Redis refused statistics: %s", reply)
                self._tallies.give_back(told)
                raise unavailable()

    async def _keep_telling(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), TELL_SECONDS)
            try:
                await self.tell()
            except SluiceError:
                continue  # whoever asks for a prediction is told, and more often
            except Exception:  # the task's edge: no figure of this gateway would be told any more
                log.exception("statistics could not be told")
