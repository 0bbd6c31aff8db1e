"""How many webhooks may be on their way at once: of all, of one client, and of receivers that take nothing.

A receiver that never answers holds a background worker's thread for ten seconds, so that a few of them could hold all.
Whose share is smallest is next, and those that failed of late share a few places, which are drawn among them.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

# About what background workers send in a few seconds.
IN_FLIGHT = 64
# No more than the threads that a background worker has by default: who turns out to be down held them once.
IN_FLIGHT_OF_CLIENT = 8
# To the other receivers of a client that has one which is down: they may be the next to turn out so.
IN_FLIGHT_OF_SUSPECT = 3
IN_FLIGHT_OF_FAILING = 1
# Of all that fail together: half of the threads that one background worker has for webhooks while it reads files.
IN_FLIGHT_FAILING = 2


@dataclass(frozen=True, slots=True)
class Standing:
    """Whose target this is, and whether it took nothing of late."""

    client_id: str
    failing: bool


class Room:
    """What is on its way, and what may be added to it in this turn."""

    def __init__(self, flying: Mapping[str, int], standings: Mapping[str, Standing]) -> None:
        self._standings = standings
        self._of_target = Counter(flying)
        self._of_client: Counter[str] = Counter()
        self._sound_of_client: Counter[str] = Counter()
        self._failing = 0
        self._suspects = {standing.client_id for standing in standings.values() if standing.failing}
        for target, count in flying.items():
            self._count(target, count)

    @property
    def full(self) -> bool:
        """Whether nothing more may be sent at all."""
        return self._of_target.total() >= IN_FLIGHT

    def in_turn(self, due: Mapping[str, float]) -> list[str]:
        """The targets that are due, each with the moment since when; who has least on its way comes first."""

        def place(target: str) -> tuple[float, ...]:
            shares = self._of_client[self._client_of(target)], self._of_target[target]
            if self._fails(target):
                # The longest due of those that fail may be the one that never answers: it would be tried for ever.
                return (*shares, 1, random.random())  # noqa: S311 - guards nothing
            return (*shares, 0, due[target])

        return sorted(due, key=place)

    def most_for(self, target: str) -> int:
        """How many more may be sent there now."""
        if self._fails(target):
            most = min(IN_FLIGHT_OF_FAILING - self._of_target[target], IN_FLIGHT_FAILING - self._failing)
        else:
            client_id = self._client_of(target)
            allowed = IN_FLIGHT_OF_SUSPECT if client_id in self._suspects else IN_FLIGHT_OF_CLIENT
            most = allowed - self._sound_of_client[client_id]
        return max(0, min(most, IN_FLIGHT - self._of_target.total()))

    def take(self, target: str, count: int) -> None:
        """So many more are on their way there."""
        self._of_target[target] += count
        self._count(target, count)

    def _count(self, target: str, count: int) -> None:
        client_id = self._client_of(target)
        self._of_client[client_id] += count
        if self._fails(target):
            self._failing += count
        else:
            self._sound_of_client[client_id] += count

    def _client_of(self, target: str) -> str:
        # One that is not known was deleted, and counts for itself.
        return self._standings[target].client_id if target in self._standings else target

    def _fails(self, target: str) -> bool:
        return target in self._standings and self._standings[target].failing
