"""Daily quotas in this gateway: what was used by the last reading of SQL, and what was charged here since.

Twice a second the charges go to SQL in one transaction, which also reads what other gateways charged. A gateway that is
killed forgets the charges of less than a second; one that cannot reach SQL keeps them.
"""

from __future__ import annotations

import asyncio
import time

from auth.quotas import Place, Reading, Used, charge, forget, read_today
from model_store.database import Sessions, transaction


class Usage:
    """What one client used today of its quotas on one model or on everything; plain numbers, for the hot path."""

    __slots__ = ("_new", "_sent", "bytes", "instances")

    def __init__(self) -> None:
        self.instances = 0
        self.bytes = 0
        # What SQL has not been told, and what it is being told: instances and bytes.
        self._new = [0, 0]
        self._sent = [0, 0]

    def charge(self, instances: int, size: int) -> None:
        """Less than 0 gives back."""
        self.instances += instances
        self.bytes += size
        new = self._new
        new[0] += instances
        new[1] += size

    def send(self) -> Used:
        """What SQL has not been told; it is under way now."""
        self._sent, self._new = self._new, [0, 0]
        return Used(*self._sent)

    def arrived(self) -> None:
        self._sent = [0, 0]

    def failed(self) -> None:
        """What was under way has to be sent again."""
        self._new = [new + sent for new, sent in zip(self._new, self._sent, strict=True)]
        self._sent = [0, 0]

    def learn(self, used: Used) -> None:
        """What SQL knows; what it has not been told counts besides."""
        self.instances = used.instances + self._new[0]
        self.bytes = used.bytes + self._new[1]


class Quotas:
    """All usages of the day that this gateway knows of, on the event loop; SQL is asked in a thread."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._usages: dict[Place, Usage] = {}
        self._read_until = 0
        self._day = -1
        self._day_ends_at = 0.0

    def usage(self, place: Place) -> Usage:
        """The usage of a place; always the same object within a day."""
        return self._usages.setdefault(place, Usage())

    def seconds_left(self) -> float:
        """How long today's quotas still last."""
        return max(0.0, self._day_ends_at - time.monotonic())

    async def exchange(self) -> None:
        """Send what is new and read what others sent; raises DatabaseUnavailable, after which nothing is lost."""
        sent = {place: usage.send() for place, usage in self._usages.items()}
        news = {place: used for place, used in sent.items() if used != Used()}
        try:
            reading = await asyncio.to_thread(self._ask, news)
        except BaseException:  # put back and raised again
            # Should SQL have committed all the same, these are charged twice: too much rather than too little.
            for place in sent:
                self._usages[place].failed()
            raise
        for place in sent:
            self._usages[place].arrived()
        self._learn(reading)

    def _learn(self, reading: Reading) -> None:
        if reading.day != self._day:
            self._day = reading.day
            for usage in self._usages.values():
                usage.learn(Used())
        self._day_ends_at = time.monotonic() + reading.seconds_left
        self._read_until = reading.moment
        for place, used in reading.used.items():
            self.usage(place).learn(used)

    def _ask(self, news: dict[Place, Used]) -> Reading:
        """In a thread."""
        if news:
            with transaction(self._sessions) as session:
                charge(session, news)
        with transaction(self._sessions, write=False) as session:
            reading = read_today(session, self._read_until)
        if 0 <= self._day < reading.day:
            with transaction(self._sessions) as session:
                forget(session)
        return reading
