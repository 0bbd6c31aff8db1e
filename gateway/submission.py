"""Synchronous predictions into lanes, and their answers back: the conversation between gateway and workers.

All requests that arrived in one turn of the event loop become one pipelined write: one entry per lane, and a ring for
lanes that this gateway has not rung within the last second. Who waits, rings: once a second for every lane in which a
request of this gateway still waits, each time on the version's next slot, should the one before not serve.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import hiredis

from gateway.wire import Wire, unavailable
from model_store.errors import SluiceError
from workers.bells import Ring, choose, ring
from workers.errors import DeadlinePassed
from workers.lanes import (
    BUNDLE_BYTES,
    BUNDLE_FIELD,
    BUNDLE_PREDICTIONS,
    LANE_MILLISECONDS,
    Answer,
    Keys,
    Lane,
    pack_bundle,
    unpack_answers,
)
from workers.publisher import Publisher
from workers.redis_link import Reply, pack
from workers.settings import QueueSettings
from workers.slots import SLOT_SECONDS

log = logging.getLogger(__name__)

CHECK_SECONDS = 0.25
RING_SECONDS = 1.0
BLOCK_SECONDS = 1
ANSWERS_A_TIME = 64
# A write or a read that takes longer than this is taken for a dead connection.
PATIENCE_SECONDS = 3.0
RUNG_LANES = 20_000


@dataclass(slots=True)
class Waiting:
    """A request that waits for its answer."""

    future: asyncio.Future[Answer]
    lane: Lane
    until: float


@dataclass(slots=True)
class Rung:
    """When this gateway last rang for a lane, and how often in a row without an answer."""

    at: float
    attempts: int


class Submission:
    """The gateway's end of the queue for synchronous predictions. All of it runs on one event loop."""

    def __init__(self, settings: QueueSettings, gateway: str, publisher: Publisher) -> None:
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._publisher = publisher
        self._reply_to = self._keys.replies(gateway)
        self._wire = Wire(settings, patience_seconds=PATIENCE_SECONDS)
        self._answers = Wire(settings, patience_seconds=BLOCK_SECONDS + PATIENCE_SECONDS)
        self._next_number = 0
        self._waiting: dict[int, Waiting] = {}
        self._turn: dict[Lane, list[tuple[int, bytes]]] = {}
        self._turn_scheduled = False
        self._rung: dict[Lane, Rung] = {}
        self._slots: tuple[str, ...] = ()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connected(self) -> bool:
        """Whether Redis can be reached right now."""
        return self._wire.connected.is_set() and self._answers.connected.is_set()

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots of workers that are alive, as of at most a second ago."""
        return self._slots

    async def start(self) -> None:
        await self._wire.start()
        await self._answers.start()
        await self._look_for_slots()
        self._tasks = [asyncio.create_task(self._receive()), asyncio.create_task(self._tick())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._wire.close()
        await self._answers.close()

    async def predict(self, lane: Lane, body: bytes, seconds: float) -> Answer:
        """Queue one prediction and wait for its answer.

        Raises QueueUnavailable (503) while Redis is away, DeadlinePassed (504) after `seconds`.
        """
        if not self.connected:
            raise unavailable()
        self._next_number += 1
        number = self._next_number
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting[number] = Waiting(future, lane, loop.time() + seconds)
        self._turn.setdefault(lane, []).append((number, body))
        if not self._turn_scheduled:
            self._turn_scheduled = True
            loop.call_soon(self._end_turn)
        try:
            return await future
        finally:
            self._waiting.pop(number, None)

    def add_jobs(self, lane: Lane, entries: Sequence[bytes]) -> None:
        """Lay out packed XADD commands of jobs and ring; a failure is no loss, the dispatcher repeats it."""
        rings: list[Ring] = []
        commands = [*entries, pack("PEXPIRE", self._keys.lane(lane), LANE_MILLISECONDS)]
        commands += self._ring_if_due(lane, time.monotonic(), rings)
        try:
            self._send(commands, rings)
        except SluiceError:
            log.info("jobs wait in SQL: Redis is away")

    def _end_turn(self) -> None:
        """Send everything that this turn of the event loop brought, in one write."""
        self._turn_scheduled = False
        turn, self._turn = self._turn, {}
        limit_ms, now = int(self._settings.synchronous_seconds * 1000), time.monotonic()
        commands: list[bytes] = []
        rings: list[Ring] = []
        for lane, predictions in turn.items():
            key = self._keys.lane(lane)
            commands += [
                pack("XADD", key, "*", BUNDLE_FIELD, pack_bundle(self._reply_to, limit_ms, bundle))
                for bundle in bundles(predictions)
            ]
            commands.append(pack("PEXPIRE", key, LANE_MILLISECONDS))
            commands += self._ring_if_due(lane, now, rings)
        numbers = [number for predictions in turn.values() for number, _ in predictions]
        try:
            self._send(commands, rings).add_done_callback(lambda done: self._check_sent(done, numbers))
        except SluiceError as error:
            self._fail(numbers, error)

    def _ring_if_due(self, lane: Lane, now: float, rings: list[Ring]) -> list[bytes]:
        rung = self._rung.get(lane)
        if rung is not None and now - rung.at < RING_SECONDS:
            return []
        if rung is None:
            if len(self._rung) >= RUNG_LANES:
                self._rung = {lane: kept for lane, kept in self._rung.items() if now - kept.at < RING_SECONDS}
            rung = self._rung[lane] = Rung(now, 0)
        slot = choose(self._slots, lane.model, lane.version, rung.attempts)
        if slot is None:
            # No worker is announced: the next tick tries again, as soon as one is.
            rung.at = float("-inf")
            return []
        rung.at = now
        new = ring(self._keys, self._settings.pool, lane.name, slot)
        rings.append(new)
        return new.commands

    def _send(self, commands: Sequence[bytes], rings: Sequence[Ring]) -> asyncio.Future[list[Reply]]:
        replies = self._wire.execute(commands)
        replies.add_done_callback(lambda done: self._start_drains(done, rings, commands))
        return replies

    def _check_sent(self, done: asyncio.Future[list[Reply]], numbers: Sequence[int]) -> None:
        """A write that failed is told to its callers: whether it arrived, nobody knows, and asking again is theirs."""
        if done.cancelled() or done.exception() is not None:
            self._fail(numbers, unavailable())
        elif any(isinstance(reply, hiredis.ReplyError) and _refuses(reply) for reply in done.result()):
            # Out of memory, read-only after a failover, a right taken away: nothing was queued.
            log.error("Redis refused an entry: %s", next(r for r in done.result() if isinstance(r, hiredis.ReplyError)))
            self._fail(numbers, unavailable())

    def _start_drains(
        self, done: asyncio.Future[list[Reply]], rings: Sequence[Ring], commands: Sequence[bytes]
    ) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        places = {id(command): index for index, command in enumerate(commands)}
        replies = done.result()
        for new in rings:
            if new.started([replies[places[id(new.commands[-1])]]]):
                self._publisher.drain(self._settings.pool, new.slot, new.token)

    def _fail(self, numbers: Sequence[int], error: SluiceError) -> None:
        for number in numbers:
            waiting = self._waiting.get(number)
            if waiting is not None and not waiting.future.done():
                waiting.future.set_exception(error)

    async def _receive(self) -> None:
        """Hand out answers; one read brings those of several batches."""
        block = pack("BLPOP", self._reply_to, BLOCK_SECONDS)
        more = pack("LPOP", self._reply_to, ANSWERS_A_TIME)
        while True:
            try:
                reply = (await self._answers.execute([block]))[0]
                if isinstance(reply, list):
                    self._hand_out(reply[1])
                    rest = (await self._answers.execute([more]))[0]
                    for packed in rest if isinstance(rest, list) else ():
                        self._hand_out(packed)
            except SluiceError:
                # What was queued may be gone with Redis; an error now is better than silence until the deadline.
                self._fail(list(self._waiting), unavailable())
                # A socket that just broke refuses without yielding, before `connected` could be cleared.
                await asyncio.sleep(CHECK_SECONDS)
                await self._answers.connected.wait()
            except Exception:  # the task's edge: without it no request of this gateway would ever be answered again
                log.exception("answers could not be handed out")
                await asyncio.sleep(CHECK_SECONDS)

    def _hand_out(self, packed: bytes) -> None:
        for answer in unpack_answers(packed):
            # An answer may come twice, after a crash in between: the second finds nobody waiting.
            waiting = self._waiting.get(answer.number)
            if waiting is None or waiting.future.done():
                continue
            rung = self._rung.get(waiting.lane)
            if rung is not None:
                rung.attempts = 0
            waiting.future.set_result(answer)

    async def _tick(self) -> None:
        looked_at = 0.0
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                self._time_out()
                now = time.monotonic()
                if now - looked_at >= RING_SECONDS:
                    looked_at = now
                    await self._look_for_slots()
                self._ring_again(now)
            except Exception:  # the task's edge: nobody would time out or ring any more
                log.exception("waiting requests could not be looked after")

    def _time_out(self) -> None:
        now = asyncio.get_running_loop().time()
        late = [number for number, waiting in self._waiting.items() if waiting.until < now]
        if late:
            text = "the prediction took longer than it may; submit it as a job with :submit or Prefer: respond-async"
            self._fail(late, DeadlinePassed(text))

    def _ring_again(self, now: float) -> None:
        """Who waits, rings: a ring, a Celery message or a whole Redis may have been lost."""
        commands: list[bytes] = []
        rings: list[Ring] = []
        for lane in {waiting.lane for waiting in self._waiting.values()}:
            rung = self._rung.get(lane)
            if rung is not None and now - rung.at >= RING_SECONDS:
                rung.attempts += 1
                commands += self._ring_if_due(lane, now, rings)
        if commands and self._wire.connected.is_set():
            self._send(commands, rings)

    async def _look_for_slots(self) -> None:
        if not self._wire.connected.is_set():
            return
        key = self._keys.slots(self._settings.pool)
        try:
            clock, raw = await self._wire.execute([pack("TIME"), pack("ZRANGE", key, 0, -1, "WITHSCORES")])
        except SluiceError:
            return
        if not isinstance(raw, list):
            return
        since = int(clock[0]) + int(clock[1]) / 1e6 - SLOT_SECONDS
        pairs = zip(raw[::2], raw[1::2], strict=True)
        self._slots = tuple(sorted(slot.decode() for slot, score in pairs if float(score) >= since))


def bundles(predictions: Sequence[tuple[int, bytes]]) -> list[list[tuple[int, bytes]]]:
    """Split a turn's predictions into entries of at most 64 predictions and 1 MiB, or one larger prediction."""
    if len(predictions) == 1:
        return [list(predictions)]
    entries: list[list[tuple[int, bytes]]] = []
    size = BUNDLE_BYTES + 1
    for prediction in predictions:
        if size + len(prediction[1]) > BUNDLE_BYTES or len(entries[-1]) >= BUNDLE_PREDICTIONS:
            entries.append([])
            size = 0
        entries[-1].append(prediction)
        size += len(prediction[1])
    return entries


def _refuses(error: hiredis.ReplyError) -> bool:
    # Every ring creates groups that usually exist already.
    return not str(error).startswith("BUSYGROUP")
