"""The drain: one session of one slot, which serves every version of its pool.

It blocks on its bell and its hot lanes, groups what it read by version, runs one inference for each, sends all answers
in one pipeline, acknowledges, and goes on. Short batches run in the loop; whatever takes longer runs in a thread, one
batch in flight per version and priority, whose lanes stay unread meanwhile; where larger batches gain nothing, the
next one is read and parsed during that time.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import redis

from workers.answering import Answering
from workers.batch_threads import THREADS, BatchThreads
from workers.bells import BELL_RINGS, DRAIN_MILLISECONDS
from workers.entries import Entry, Group, foreign, grouped, settle
from workers.first_loads import Arrival, FirstLoads
from workers.heart import Heart
from workers.hot_lanes import TURN_PREDICTIONS, HotLane, HotLanes
from workers.lanes import GROUP, RING_FIELD, WEIGHT_FIELD, Keys, Priority
from workers.outbox import Parcel
from workers.overflow import Overflow
from workers.publisher import Publisher
from workers.reading import Found, Reading, Rings, Wanted
from workers.recovery import Recovery
from workers.redis_link import Wire, pack

log = logging.getLogger(__name__)

BLOCK_MILLISECONDS = 1000
IDLE_SECONDS = 10.0
SESSION_SECONDS = 60.0
RECONNECT_SECONDS = 0.5
BULK_FIRST_TURNS = 10
COOL_LOOK_SECONDS = 0.25
IDLE_LOOK_SECONDS = 0.002


@dataclass(frozen=True, slots=True)
class Slot:
    """Where a session runs: a pool, the slot's name and the token that its key has to hold."""

    pool: str
    name: str
    token: str


class Drain:
    """One session; `run` returns why it ended."""

    def __init__(
        self, slot: Slot, client: redis.Redis, keys: Keys, heart: Heart, answering: Answering, publisher: Publisher
    ) -> None:
        self._slot = slot
        self._keys = keys
        self._bell = keys.bell(slot.pool, slot.name)
        self._drain_key = keys.drain(slot.pool, slot.name)
        self._wire = Wire(client)
        self._heart = heart
        self._answering = answering
        self._publisher = publisher
        self._lanes = HotLanes(keys)
        self._reading = Reading(self._wire, self._bell, answering.consumer)
        self._recovery = Recovery(self._wire, keys, answering.consumer)
        place = (slot.pool, slot.name)
        self._overflow = Overflow(client, keys, place, publisher, self._wire)
        self._first_loads = FirstLoads(self._wire, keys, place, self._reading, answering.running)
        self._threads = BatchThreads(self._wake, answering.files)
        self._parcel = Parcel()
        self._turns = 0
        self._cool_at = 0.0
        self._idle_at = 0.0
        self._found_last = False
        self._started = self._active_at = time.monotonic()

    def run(self) -> str:
        """Serve until there is a reason to end: superseded, stopping, idle, or over to the next session."""
        self._started = time.monotonic()
        try:
            self._resume()
            while True:
                ending = self._ending()
                if ending is not None and self._end(ending):
                    return ending
                self._answering.running.watchdog.pat()
                try:
                    self._turn()
                except redis.RedisError as error:
                    log.warning("Redis does not answer (%s); this session waits for it", type(error).__name__)
                    self._reconnect()
        finally:
            self._answering.outbox.send(self._parcel.take())
            self._threads.close()
            self._wire.close()

    def _ending(self) -> str | None:
        if self._heart.lost:
            return "superseded"
        if self._answering.stopping():
            return "stopping"
        now = time.monotonic()
        if now - self._started > SESSION_SECONDS and not self._threads:
            # Not while a slow batch runs: it would have to be waited for, and every other version with it.
            return "handed over"
        if now - self._active_at > IDLE_SECONDS and not self._threads:
            return "idle"
        return None

    def _turn(self) -> None:
        self._turns += 1
        now = time.monotonic()
        if now >= self._cool_at:
            self._cool_at = now + COOL_LOOK_SECONDS
            self._lanes.cool()
            self._leave_lanes()
            self._first_loads.renew()
            if now - self._started > SESSION_SECONDS:
                self._threads.keep_files()
        if self._answering.outbox.waiting:
            self._answering.outbox.flush()
        rings, found = self._read()
        if rings:
            self._hear(rings)
        self._found_last = bool(found)
        if found:
            self._active_at = time.monotonic()
            self._ask_for_help(found)
            for group in grouped(found):
                self._run(group)

    def _read(self) -> tuple[Rings, Found]:
        """Interactive lanes first, every tenth turn bulk first; blocks only where nothing lies in either."""
        unread = self._unread if self._threads.hold_lanes or self._first_loads.under_way else None
        if self._found_last and self._lanes.mixed:
            first = Priority.BULK if self._turns % BULK_FIRST_TURNS == 0 else Priority.INTERACTIVE
            lanes, idle = self._lanes.choose(self._lanes.readable(first, unread))
            rings, found = self._read_lanes(Wanted(lanes, self._if_due(idle)))
            if rings or found:
                return rings, found
        readable = self._lanes.readable(None, unread)
        lanes, idle = self._lanes.choose(readable)
        if len(lanes) + len(idle) < len(readable) or (idle and self._found_last):
            # Lanes in debt, idle ones and those beyond one read stand back only while the others have something: nobody
            # would wake a reader that sleeps on other lanes than the one that has work.
            rings, found = self._read_lanes(Wanted(lanes, self._if_due(idle)))
            if rings or found:
                return rings, found
            self._lanes.forgive(readable)
        return self._read_lanes(Wanted(readable, block_ms=BLOCK_MILLISECONDS))

    def _if_due(self, idle: Sequence[HotLane]) -> Sequence[HotLane]:
        """Idle lanes are looked at a few hundred times a second: to name hundreds of them costs as much as a batch."""
        now = time.monotonic()
        if now < self._idle_at:
            return ()
        self._idle_at = now + IDLE_LOOK_SECONDS
        return idle

    def _read_lanes(self, wanted: Wanted) -> tuple[Rings, Found]:
        """Read, after sending the answers of the turn before in the same round trip."""
        answers = self._parcel.take()
        try:
            rings, found = self._reading.read(self._lanes, wanted, answers)
        except redis.RedisError:
            # An answer that comes twice finds nobody waiting.
            self._answering.outbox.keep(answers)
            raise
        return rings, self._timely(found)

    def _ask_for_help(self, found: Sequence[tuple[HotLane, Sequence[Entry]]]) -> None:
        """A lane that gave as much as was asked for has more than one slot can take."""
        for hot, entries in found:
            if sum(entry.predictions for entry in entries) * len(found) >= TURN_PREDICTIONS:
                loaded = self._answering.running.cache.peek(*hot.version)
                if loaded is not None:
                    self._overflow.full(hot, loaded.max_parallelism)

    def _unread(self, hot: HotLane) -> bool:
        if self._threads.has_files_of(hot.key) or hot.version in self._first_loads.under_way:
            return True
        busy = self._threads.busy(hot.place)
        if not busy:
            return False
        # What is read ahead holds a thread while it waits: jobs, loads and other versions need some too. A session that
        # has had its time lets its batches end, so that it can be handed over between two of them.
        may_read_ahead = self._threads.running < THREADS // 2 and time.monotonic() - self._started < SESSION_SECONDS
        return not may_read_ahead or busy >= self._answering.at_once(hot.version)

    def _timely(self, found: Found) -> Found:
        """Without synchronous entries whose deadline has passed: their callers were answered long ago."""
        now = self._redis_ms()
        late = [entry for _, entries in found for entry in entries if entry.expired(now)]
        if not late:
            return found
        self._answering.outbox.send(settle(late))
        return [(hot, [entry for entry in entries if not entry.expired(now)]) for hot, entries in found]

    def _redis_ms(self) -> float:
        """Redis's clock in milliseconds: entries are dated by it, and one clock judges all deadlines."""
        return self._answering.clock.now_ms(self._wire)

    def _hear(self, rings: Rings) -> None:
        """Lanes woke up: heat them, and take over what dead sessions left in them."""
        self._active_at = time.monotonic()
        woken: list[tuple[HotLane, bool]] = []
        for ring_id, name, weight in rings:
            try:
                hot, cold = self._lanes.heat(name)
            except ValueError:
                foreign("a ring named no lane")
                self._unring([ring_id])
                continue
            if self._answering.running.pools.elsewhere(hot.lane.model):
                # Whoever rang has not heard yet that the model moved, and rings there within a second.
                self._lanes.drop(hot)
                self._unring([ring_id])
                continue
            hot.rings.append(ring_id)
            hot.weight = weight or hot.weight
            woken.append((hot, cold))
        self._recover(woken)
        for hot, cold in woken:
            if cold and not self._threads.busy(hot.place):
                self._receive(hot)

    def _receive(self, hot: HotLane) -> None:
        """A lane that was cold: read it from now on, once its version is loaded; or leave it to others."""
        match self._first_loads.arrival(hot):
            case Arrival.LOAD:
                self._threads.start(hot.key, partial(self._load, hot))
            case Arrival.LEAVE:
                self._lanes.drop(hot)
                self._unring(hot.rings)

    def _load(self, hot: HotLane) -> None:
        self._answering.outbox.send(self._first_loads.load(hot.version))

    def _leave_lanes(self) -> None:
        """Leave the lanes of models that other pools serve now, unread: whoever has something in them rings there."""
        pools = self._answering.running.pools
        for hot in self._lanes:
            if pools.left(hot.lane.model, hot.since):
                self._lanes.drop(hot)
                self._unring(hot.rings)

    def _unring(self, ring_ids: Sequence[bytes]) -> None:
        if ring_ids:
            rings = (*ring_ids,)
            self._answering.outbox.send([pack("XACK", self._bell, GROUP, *rings), pack("XDEL", self._bell, *rings)])

    def _recover(self, woken: Sequence[tuple[HotLane, bool]]) -> None:
        left = self._recovery.left_behind(woken, self._threads.in_hand())
        self._answering.outbox.send(settle(left.gone))
        self._answering.give_up(left.hopeless)
        for group in grouped(left.entries):
            log.warning(
                "%d entries of %s were left by a dead session and run singly", len(group.entries), group.version
            )
            self._threads.run(group, self._answering.singly)

    def _run(self, group: Group) -> None:
        hot = self._lanes.get(group.entries[0].lane_key)
        if hot is not None and hot.quarantined:
            self._threads.run(group, self._answering.refuse_quarantined)
        elif not self._answering.inline(group, self._parcel):
            self._threads.run(group, partial(self._answering.slowly, aside=self._threads.set_aside))

    def _wake(self, lane_keys: Iterable[bytes]) -> None:
        self._answering.outbox.send(self._ring_myself(lane_keys))

    def _ring_myself(self, lane_keys: Iterable[bytes]) -> list[bytes]:
        # The loop may be blocked on other lanes for a second: a ring ends the wait.
        commands = []
        for key in lane_keys:
            hot = self._lanes.get(key)
            weight = () if hot is None else (WEIGHT_FIELD, f"{hot.weight:g}")
            fields = (RING_FIELD, self._keys.lane_of(key), *weight)
            commands.append(pack("XADD", self._bell, "MAXLEN", "~", BELL_RINGS, "*", *fields))
        return commands

    def _resume(self) -> None:
        """Begin, or go on after a failure: groups first, then the own unfinished rings."""
        self._reading.create_groups(self._lanes)
        rings = self._reading.pending_rings()
        self._lanes = HotLanes(self._keys)
        if rings:
            self._hear(rings)

    def _reconnect(self) -> None:
        """Wait for Redis, keeping finished answers; Celery itself would back off for up to thirty seconds."""
        while not self._answering.stopping():
            time.sleep(RECONNECT_SECONDS)
            self._answering.running.watchdog.pat()
            with contextlib.suppress(redis.RedisError):
                self._answering.outbox.flush()
                self._resume()
                return

    def _end(self, ending: str) -> bool:
        """Leave the slot so that nothing is forgotten; returns False where work turned up and the session goes on."""
        self._answering.outbox.send(self._parcel.take())
        if ending == "superseded":
            return True
        # The next session reads under the same name: what this one still runs would look left behind to it.
        self._threads.finish(self._answering.running.watchdog.pat)
        try:
            hot = [lane.key for lane in self._lanes]
            if ending == "handed over":
                return self._hand_over(hot)
            self._heart.keep_key(False)
            self._wire.execute([*self._ring_myself(hot), pack("DEL", self._drain_key)])
            if ending == "stopping":
                return True
            if not self._reading.anything(self._bell):
                return True
            again = pack("SET", self._drain_key, self._slot.token, "NX", "PX", DRAIN_MILLISECONDS)
            self._active_at = time.monotonic()
            taken = self._wire.execute([again])[0] is not None
            self._heart.keep_key(taken)
            return not taken
        except redis.RedisError:
            return True

    def _hand_over(self, hot: list[bytes]) -> bool:
        """Let Celery recycle this child: the next session gets the key and finds the hot lanes in its bell."""
        token = secrets.token_hex(8)
        commands = [*self._ring_myself(hot), pack("SET", self._drain_key, token, "XX", "PX", DRAIN_MILLISECONDS)]
        self._wire.execute(commands)
        self._publisher.drain(self._slot.pool, self._slot.name, token)
        return True
