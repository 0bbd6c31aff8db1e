"""Tells Redis what a worker's process counted of its versions."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

import redis

from workers.kept_statistics import TALLIES_A_TIME, additions, sizes_of, sizes_question, within
from workers.lanes import Keys
from workers.redis_link import Wire
from workers.tallies import MOST_VERSIONS, Tallies, Tally, Version


@dataclass(slots=True)
class StatisticsTelling:
    """Each figure once, whichever session of the process tells it."""

    keys: Keys
    tallies: Tallies
    # The batch sizes that Redis keeps, as far as this process knows.
    _sizes: dict[Version, set[int]] = field(default_factory=dict)
    _telling: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, wire: Wire) -> None:
        """Tell what was counted until now and not told; raises redis.RedisError, and tells it the next time then.

        What was sent on a connection that broke before its reply came is told twice: nobody knows whether it arrived.
        """
        with self._telling:
            for _ in range(self.tallies.takes(TALLIES_A_TIME)):
                told = self.tallies.take(TALLIES_A_TIME)
                try:
                    self._learn_sizes(wire, told)
                    self._add(wire, told)
                except Exception:  # given back and raised again, whatever it was
                    self.tallies.give_back(told)
                    raise

    def _add(self, wire: Wire, told: Mapping[Version, Tally]) -> None:
        rows = {version: within(tally, self._sizes[version]) for version, tally in told.items()}
        reply = wire.execute(additions(self.keys, rows))[-1]
        if isinstance(reply, redis.ResponseError):
            raise reply
        for version, tally in rows.items():
            self._sizes[version].update(tally.batches)

    def _learn_sizes(self, wire: Wire, told: Mapping[Version, Tally]) -> None:
        if len(self._sizes) > MOST_VERSIONS:
            self._sizes.clear()
        new = [one for one, tally in told.items() if not tally.batches.keys() <= self._sizes.setdefault(one, set())]
        replies = wire.execute([sizes_question(self.keys, version) for version in new]) if new else []
        for version, reply in zip(new, replies, strict=True):
            self._sizes[version] = sizes_of(reply)
