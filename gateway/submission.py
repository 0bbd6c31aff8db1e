"""Synchronous predictions into lanes, and their answers back: the conversation between gateway and workers.

All requests that arrived in one turn of the event loop become one pipelined write: one entry per lane, and a ring for
lanes that have not been rung within the last second (workers/ringer.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import hiredis
from starlette.types import Receive

from gateway.departures import Departures
from gateway.turns import LaidOut, Turn, bundles
from gateway.wire import Command, Wire, unavailable
from model_store.errors import SluiceError
from monitoring import metrics
from workers.bells import Ring
from workers.errors import DeadlinePassed, PoolDeserted
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
from workers.pools import OnePool, Pools
from workers.protocols.body import Body
from workers.publisher import Publisher
from workers.redis_link import Reply, pack, pack_pieces
from workers.ringer import RING_SECONDS, Ringer, Weight, even
from workers.settings import QueueSettings

log = logging.getLogger(__name__)

CHECK_SECONDS = 0.25
BLOCK_SECONDS = 1
ANSWERS_A_TIME = 64
POOL_RETRY_SECONDS = 5
# An answer that comes sooner after it was asked for lay there before.
BACKLOG_SECONDS = 0.0005
# A write or a read that takes longer than this is taken for a dead connection.
PATIENCE_SECONDS = 3.0
LATE = "the prediction took longer than it may; submit it as a job with :submit or Prefer: respond-async"


class CallerGone(Exception):
    """The caller closed its connection while its prediction waited."""


@dataclass(slots=True)
class Waiting:
    """A request that waits for its answer."""

    future: asyncio.Future[Answer]
    turn: Turn
    since: float
    until: float
    receive: Receive | None
    listener: asyncio.Task[None] | None = None


class Submission:
    """The gateway's end of the queue for synchronous predictions. All of it runs on one event loop."""

    def __init__(
        self,
        settings: QueueSettings,
        gateway: str,
        publisher: Publisher,
        weight: Weight = even,
        pools: Pools | None = None,
    ) -> None:
        self._settings = settings
        self._keys = Keys(settings.key_prefix)
        self._publisher = publisher
        self._ringer = Ringer(self._keys, pools or OnePool(settings.pool), weight=weight)
        self._reply_to = self._keys.replies(gateway)
        self._wire = Wire(settings, patience_seconds=PATIENCE_SECONDS)
        self._answers = Wire(settings, patience_seconds=BLOCK_SECONDS + PATIENCE_SECONDS)
        self._next_number = 0
        self._ages: dict[Lane, float] = {}
        self._waiting: dict[int, Waiting] = {}
        self._departures = Departures(self._wire, self._keys, self._is_waiting)
        self._turn: dict[Lane, Turn] = {}
        self._turn_scheduled = False
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def connected(self) -> bool:
        """Whether Redis can be reached right now."""
        return self._wire.connected.is_set() and self._answers.connected.is_set()

    @property
    def slots(self) -> tuple[str, ...]:
        """The slots of workers that are alive, as of at most a second ago."""
        return self._ringer.slots

    @property
    def slots_by_pool(self) -> Mapping[str, tuple[str, ...]]:
        """The same, for each pool that serves some model."""
        return self._ringer.by_pool

    def slots_of(self, model: str) -> tuple[str, ...]:
        """Those of the pool that serves a model."""
        return self._ringer.slots_of(model)

    async def ask(self, commands: Sequence[bytes]) -> list[Reply]:
        """Packed commands of whoever has no connection of its own, and their replies; raises QueueUnavailable."""
        return await self._wire.execute(commands)

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

    async def predict(self, lane: Lane, body: Body, seconds: float, receive: Receive | None = None) -> Answer:
        """Queue one prediction and wait for its answer; `receive` tells whether the caller is still there.

        Raises QueueUnavailable (503) while Redis is away, PoolDeserted (503) where the model's own pool has no worker,
        DeadlinePassed (504) after `seconds`, CallerGone.
        """
        if not self.connected:
            raise unavailable()
        deserted = self._ringer.deserted(lane)
        if deserted is not None:
            raise PoolDeserted(
                f"no worker of the pool {deserted}, which alone may serve the model, is there; submit a job with "
                ":submit, which waits for one",
                retry_after_seconds=POOL_RETRY_SECONDS,
            )
        self._next_number += 1
        number = self._next_number
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        now = loop.time()
        turn = self._turn.get(lane)
        if turn is None:
            turn = self._turn[lane] = Turn(lane)
        turn.predictions.append((number, body))
        waiting = self._waiting[number] = Waiting(future, turn, now, now + seconds, receive)
        if seconds < CHECK_SECONDS:
            loop.call_later(seconds, self._cancel, [number], DeadlinePassed(LATE))
        if not self._turn_scheduled:
            self._turn_scheduled = True
            loop.call_soon(self._end_turn)
        try:
            return await future
        finally:
            del self._waiting[number]
            if waiting.listener is not None:
                waiting.listener.cancel()

    def age(self, lane: Lane) -> float:
        """How many seconds the oldest request of a lane had waited here when this was last looked at, a second ago."""
        return self._ages.get(lane, 0.0)

    def add_jobs(self, lane: Lane, entries: Sequence[bytes]) -> None:
        """Lay out packed XADD commands of jobs and ring; a failure is no loss, the dispatcher repeats it."""
        rings: list[Ring] = []
        commands = [*entries, pack("PEXPIRE", self._keys.lane(lane), LANE_MILLISECONDS)]
        commands += self._ring_if_due(lane, rings)
        try:
            self._send(commands, rings)
        except SluiceError:
            log.info("jobs wait in SQL: Redis is away")

    async def tell_ended(self, ids: Sequence[str]) -> None:
        """Tell those who wait that jobs ended; a message may be lost, since they look for themselves as well."""
        try:
            await self._wire.execute([pack("PUBLISH", self._keys.ends(), " ".join(ids))])
        except SluiceError:
            log.info("the ends of %d jobs could not be told: Redis is away", len(ids))

    async def remove_job(self, lane: str, number: int) -> None:
        """Take a canceled job's entry out of its lane; should that fail, the claim refuses it all the same."""
        try:
            await self._departures.remove_job(lane, number)
        except SluiceError:
            log.info("a canceled job's entry stays in its lane: Redis is away")

    def _end_turn(self) -> None:
        """Send everything that this turn of the event loop brought, in one write."""
        self._turn_scheduled = False
        turns, self._turn = self._turn, {}
        limit_ms = int(self._settings.synchronous_seconds * 1000)
        commands: list[Command] = []
        rings: list[Ring] = []
        places: list[tuple[int, Turn, int]] = []
        numbers: list[int] = []
        for lane, turn in turns.items():
            key = self._keys.lane(lane)
            for bundle in bundles(turn.predictions):
                places.append((len(commands), turn, bundle[-1][0]))
                packed = pack_bundle(self._reply_to, limit_ms, bundle)
                commands.append(pack_pieces(b"XADD", key, b"*", BUNDLE_FIELD, last=packed))
            commands += self._ring_if_due(lane, rings) or self._expire_unless_rung(lane, key)
            numbers += [number for number, _ in turn.predictions]
            # Each caller holds its own body; what lies here would be kept for the slowest of them.
            turn.predictions = []
        try:
            self._send(commands, rings).add_done_callback(lambda done: self._check_sent(done, numbers, places))
        except SluiceError as error:
            self._fail(numbers, error)

    def _ring_if_due(self, lane: Lane, rings: list[Ring]) -> list[bytes]:
        new = self._ringer.due(lane)
        if new is None:
            return []
        rings.append(new)
        return new.commands

    def _expire_unless_rung(self, lane: Lane, key: bytes) -> list[bytes]:
        # A ring renews its lane's expiry, and one went out within the last second wherever there is somebody to ring.
        return [] if self._ringer.slots_of(lane.model) else [pack("PEXPIRE", key, LANE_MILLISECONDS)]

    def _send(self, commands: Sequence[Command], rings: Sequence[Ring]) -> asyncio.Future[list[Reply]]:
        replies = self._wire.execute(commands)
        replies.add_done_callback(lambda done: self._start_drains(done, rings, commands))
        return replies

    def _check_sent(
        self, done: asyncio.Future[list[Reply]], numbers: Sequence[int], places: Sequence[tuple[int, Turn, int]]
    ) -> None:
        """A write that failed is told to its callers: whether it arrived, nobody knows, and asking again is theirs."""
        if done.cancelled() or done.exception() is not None:
            self._fail(numbers, unavailable())
            return
        replies = done.result()
        refusals = [reply for reply in replies if isinstance(reply, hiredis.ReplyError) and _refuses(reply)]
        if refusals:
            # Out of memory, read-only after a failover, a right taken away: nothing was queued.
            log.error("Redis refused an entry: %s", refusals[0])
            self._fail(numbers, unavailable())
            return
        for place, turn, last in places:
            turn.entries.append(LaidOut(replies[place], last))

    def _start_drains(
        self, done: asyncio.Future[list[Reply]], rings: Sequence[Ring], commands: Sequence[Command]
    ) -> None:
        if done.cancelled() or done.exception() is not None or not rings:
            return
        places = {id(command): index for index, command in enumerate(commands)}
        replies = done.result()
        for new in rings:
            if new.started([replies[places[id(new.commands[-1])]]]):
                self._publisher.drain(new.pool, new.slot, new.token)

    def _fail(self, numbers: Sequence[int], error: Exception) -> None:
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
                asked_at = time.monotonic()
                reply = (await self._answers.execute([block]))[0]
                if isinstance(reply, list):
                    self._hand_out(reply[1])
                    if time.monotonic() - asked_at < BACKLOG_SECONDS:
                        # It lay there already, so there may be more; else this would be a round trip for nothing.
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
            if waiting is not None and not waiting.future.done():
                self._ringer.answered(waiting.turn.lane)
                waiting.future.set_result(answer)

    async def _tick(self) -> None:
        looked_at = float("-inf")
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            try:
                self._time_out()
                self._listen_for_hang_ups()
                await self._take_out()
                if time.monotonic() - looked_at >= RING_SECONDS:
                    looked_at = time.monotonic()
                    self._show_waiting()
                    await self._look_for_slots()
                self._ring_again()
            except Exception:  # the task's edge: nobody would time out or ring any more
                log.exception("waiting requests could not be looked after")

    def _time_out(self) -> None:
        now = asyncio.get_running_loop().time()
        late = [number for number, waiting in self._waiting.items() if waiting.until < now]
        if late:
            self._cancel(late, DeadlinePassed(LATE))

    def _show_waiting(self) -> None:
        now = asyncio.get_running_loop().time()
        counts: Counter[tuple[object, ...]] = Counter()
        ages: dict[tuple[object, ...], float] = {}
        of_lanes: dict[Lane, float] = {}
        for waiting in self._waiting.values():
            lane, age = waiting.turn.lane, now - waiting.since
            if lane.priority is Priority.BULK:
                continue  # a copy for a shadow: nobody waits for it
            place = (lane.model, lane.version)
            counts[place] += 1
            ages[place] = max(ages.get(place, 0.0), age)
            of_lanes[lane] = max(of_lanes.get(lane, 0.0), age)
        self._ages = of_lanes
        metrics.show(metrics.WAITING, counts)
        metrics.show(metrics.WAITING_AGE, ages)

    def _listen_for_hang_ups(self) -> None:
        """Only for who has waited a while: a task for each request would cost more than the whole queue."""
        now = asyncio.get_running_loop().time()
        for number, waiting in self._waiting.items():
            if waiting.listener is None and waiting.receive is not None and now - waiting.since > CHECK_SECONDS:
                waiting.listener = asyncio.create_task(self._listen(number, waiting.receive))

    async def _listen(self, number: int, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        self._cancel([number], CallerGone())

    def _cancel(self, numbers: Sequence[int], error: Exception) -> None:
        """Fail requests that nobody waits for, and see that they are taken out of their lanes."""
        for number in numbers:
            waiting = self._waiting.get(number)
            if waiting is not None:
                self._departures.note(waiting.turn, number)
        self._fail(numbers, error)

    def _is_waiting(self, number: int) -> bool:
        waiting = self._waiting.get(number)
        return waiting is not None and not waiting.future.done()

    async def _take_out(self) -> None:
        if not self._wire.connected.is_set():
            return
        try:
            await self._departures.take_out()
        except SluiceError:
            log.info("predictions that nobody waits for stay in their lanes: Redis is away")

    def _ring_again(self) -> None:
        rings = self._ringer.again({waiting.turn.lane for waiting in self._waiting.values()})
        if rings and self._wire.connected.is_set():
            self._send([command for new in rings for command in new.commands], rings)

    async def _look_for_slots(self) -> None:
        if not self._wire.connected.is_set():
            return
        try:
            self._ringer.learn(await self._wire.execute(self._ringer.question()))
        except SluiceError:
            log.info("slots could not be looked up: Redis is away")


def _refuses(error: hiredis.ReplyError) -> bool:
    # Every ring creates groups that usually exist already.
    return not str(error).startswith("BUSYGROUP")
