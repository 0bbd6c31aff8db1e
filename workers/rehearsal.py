"""Rehearsals: a version runs samples on the slots that will serve it, as its callers' requests would, for nobody.

The preparing worker warms a version up by one before anybody is given it; gateways replay golden samples by one before
a label moves. It is a prediction in a lane of its own, of which a worker knows nothing special.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import redis

from workers.bells import choose, ring
from workers.lanes import (
    BUNDLE_FIELD,
    LANE_MILLISECONDS,
    Answer,
    Keys,
    Lane,
    Priority,
    pack_bundle,
    unpack_answers,
)
from workers.protocols.body import Body
from workers.publisher import Publisher
from workers.redis_link import Wire, connect
from workers.settings import QueueSettings
from workers.slots import announced

# No client has this name: ids of clients begin otherwise.
REHEARSAL = "rehearsal"
RING_SECONDS = 1.0


class NobodyServes(Exception):
    """No worker has announced a slot of the version's pool, or Redis is away."""


class RehearsalLate(Exception):
    """No answer came in the time that there was."""


class RehearsalFailed(Exception):
    """The version answered a sample with an error: with its own words, and `passing` where asking again may help."""

    def __init__(self, message: str, *, passing: bool) -> None:
        super().__init__(message)
        self.passing = passing


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """An answer, how long it took, and the slot that was asked first."""

    answer: Answer
    seconds: float
    slot: str


@dataclass(frozen=True, slots=True)
class Stage:
    """Where rehearsals run: the version, and the pool whose workers serve it."""

    model: str
    version: int
    pool: str

    @property
    def lane(self) -> Lane:
        return Lane(self.model, self.version, Priority.INTERACTIVE, REHEARSAL)


class Rehearsal:
    """One conversation with the workers about one version; to be closed. Not for several threads at once."""

    def __init__(self, settings: QueueSettings, publisher: Publisher, stage: Stage) -> None:
        self._client = connect(settings)
        self._wire = Wire(self._client)
        self._publisher = publisher
        self._keys = Keys(settings.key_prefix)
        self._stage = stage
        self._reply_to = self._keys.replies(f"{REHEARSAL}-{secrets.token_hex(8)}")
        self._number = 0

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget answers that come too late, and hang up."""
        try:
            self._client.delete(self._reply_to)
        except redis.RedisError:
            pass  # it expires by itself
        finally:
            self._wire.close()
            self._client.close()

    def ask(self, body: Body, seconds: float) -> Rehearsed:
        """One prediction, answered within `seconds`.

        Raises NobodyServes, RehearsalLate, and RehearsalFailed with the version's own words.
        """
        try:
            return self._ask(body, seconds)
        except redis.RedisError as error:
            raise NobodyServes("the queue does not answer") from error

    def _ask(self, body: Body, seconds: float) -> Rehearsed:
        slots = announced(self._client, self._keys, self._stage.pool)
        first = choose(slots, self._stage.model, self._stage.version, 0)
        if first is None:
            raise NobodyServes(f"no worker serves pool {self._stage.pool}")
        self._number += 1
        begun = time.monotonic()
        entry = self._lay_out(body, int(seconds * 1000))
        answer = self._wait(slots, begun + seconds)
        took = time.monotonic() - begun
        if answer is None:
            self._client.xdel(self._keys.lane(self._stage.lane), entry)
            raise RehearsalLate(f"no answer within {seconds:g} seconds")
        if answer.status != 200:
            raise RehearsalFailed(_words(answer), passing=answer.status == HTTPStatus.SERVICE_UNAVAILABLE)
        return Rehearsed(answer, took, first)

    def _lay_out(self, body: Body, limit_ms: int) -> bytes:
        key = self._keys.lane(self._stage.lane)
        bundle = b"".join(pack_bundle(self._reply_to, limit_ms, [(self._number, body)]))
        pipeline = self._client.pipeline(transaction=False)
        pipeline.xadd(key, {BUNDLE_FIELD: bundle})
        pipeline.pexpire(key, LANE_MILLISECONDS)
        entry: bytes = pipeline.execute()[0]
        return entry

    def _wait(self, slots: tuple[str, ...], until: float) -> Answer | None:
        """Ring once a second, each time on the version's next slot, until the answer is there."""
        attempt = 0
        while (left := until - time.monotonic()) > 0:
            slot = choose(slots, self._stage.model, self._stage.version, attempt)
            if slot is not None:
                self._ring(slot)
            found: Any = self._client.blpop([self._reply_to.decode()], timeout=max(0.01, min(RING_SECONDS, left)))
            for answer in [] if found is None else unpack_answers(found[1]):
                # An answer to an earlier question may come late.
                if answer.number == self._number:
                    return answer
            attempt += found is None
        return None

    def _ring(self, slot: str) -> None:
        new = ring(self._keys, self._stage.pool, self._stage.lane.name, slot)
        if new.started(self._wire.execute(new.commands)):
            self._publisher.drain(self._stage.pool, slot, new.token)


def _words(answer: Answer) -> str:
    try:
        return f"{answer.status}: {json.loads(answer.body)['error']}"
    except (ValueError, KeyError, TypeError):
        return f"it was answered {answer.status}"
