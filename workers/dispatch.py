"""Queued rows into lanes, a bounded number ahead; and the sweep that finds what was lost.

A thread of every gateway runs this; one of them is active, under a lease in SQL. Redis may lose everything at any
moment: whatever a row says and no lane holds is laid out again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import redis

from model_store.database import clock_ms, transaction
from model_store.errors import DatabaseUnavailable
from monitoring import metrics
from workers import canaries, lane_counts, waiting
from workers.bells import Ring
from workers.entries import job_entry
from workers.intervals import Intervals
from workers.lanes import JOB_FIELD, LANE_MILLISECONDS, Keys, Lane, entry_ms
from workers.layout import ahead_limit, lay_out_entries, take_back_lost
from workers.pools import OnePool
from workers.redis_link import Wire, pack
from workers.ringer import Ringer
from workers.roles import hold
from workers.running_bounds import room
from workers.sweep import Collaborators, Sweep
from workers.tables import LaneCount

log = logging.getLogger(__name__)

ROLE = "dispatcher"
ROLE_SECONDS = 5
LEAD_SECONDS = 1.5
TICK_SECONDS = 0.2
BUSY_TICK_SECONDS = 0.02
RING_SECONDS = 1.0
SWEEP_SECONDS = 3.0
PURGE_SECONDS = 60.0
CANARY_SECONDS = 1.0
STORE_SECONDS = 3600.0
LANES_A_TURN = 200
LOST_AFTER_MILLISECONDS = 3000
CLOCK_MARGIN_MILLISECONDS = 1000


class Dispatcher:
    """Lays out jobs, rings for them and sweeps, while it holds the role."""

    def __init__(self, with_: Collaborators, name: str) -> None:
        self._with = with_
        self._name = name
        self._keys = Keys(with_.settings.key_prefix)
        self._wire = Wire(with_.client)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dispatcher", daemon=True)
        self._intervals = Intervals()
        self._ringer = Ringer(self._keys, with_.pools or OnePool(with_.settings.pool), weight=with_.weight)
        self._queued: dict[str, int] = {}
        self._pages: dict[str, str] = {}
        self._laid_out_to = (0, "")
        self._sweep = Sweep(with_)
        self._leads = False

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)
        self._sweep.close()
        self.close_connections()

    def close_connections(self) -> None:
        self._wire.close()
        self._with.client.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                busy = self.turn()
            except DatabaseUnavailable:
                self._sweep.pause()
                busy = False
            except redis.RedisError as error:
                log.warning("dispatching waits for Redis: %s", type(error).__name__)
                self._stop.wait(0.5)
                busy = False
            except Exception:  # the thread's edge: jobs would wait for ever for a dispatcher that died
                log.exception("a turn of the dispatcher failed")
                self._stop.wait(1)
                busy = False
            # A lane holds four batches: looked at every 0.2 s, a backlog would leave its workers idle most of the time.
            self._stop.wait(BUSY_TICK_SECONDS if busy else TICK_SECONDS)

    def turn(self) -> bool:
        """One round of whatever is due; returns whether there will soon be more to lay out."""
        if not self._lead():
            # Another gateway shows the queue now: what this one last said would stand for ever.
            metrics.show(metrics.QUEUE_DEPTH, {})
            metrics.show(metrics.QUEUE_AGE, {})
            metrics.show(metrics.CANARY_SHARE, {})
            return False
        # SQL's part of the sweep needs no Redis: it runs first, so that leases also end while Redis is away.
        if self._intervals.due("sweep", SWEEP_SECONDS):
            self._sweep.run()
            self._show_depths()
        if self._intervals.due("canaries", CANARY_SECONDS):
            canaries.judge_all(self._with.sessions)
        if self._intervals.due("purge", PURGE_SECONDS) and not self._sweep.purge():
            # As many jobs as were ever accepted in a second must leave in one, or the table would grow for ever.
            self._intervals.at_once("purge")
        if self._intervals.due("store", STORE_SECONDS):
            self._sweep.store()
        backlog = self._lay_out()
        if self._intervals.due("ring", RING_SECONDS):
            self._ring_all()
        if self._intervals.due("lost", SWEEP_SECONDS):
            self._find_lost()
        return backlog

    def _show_depths(self) -> None:
        with transaction(self._with.sessions, write=False) as session:
            depths = lane_counts.depths(session)
            oldest = waiting.oldest(session)
        metrics.show(metrics.QUEUE_DEPTH, {(model, version): queued for model, version, queued in depths})
        metrics.show(metrics.QUEUE_AGE, {(model, version): age for (model, version), age in oldest.items()})

    def _lead(self) -> bool:
        # Not at every turn: an idle gateway would write to the database five times a second.
        if self._intervals.due("lead", LEAD_SECONDS):
            self._leads = False
            with transaction(self._with.sessions) as session:
                self._leads = hold(session, ROLE, self._name, ROLE_SECONDS)
        return self._leads

    def _lay_out(self) -> bool:
        """Lay out where there is room for a batch; returns whether a lane was filled or is full.

        Jobs that wait for the end of their back-off are no backlog: looking more often would not bring them forward.
        """
        backlog = False
        with transaction(self._with.sessions, write=False) as session:
            lanes = lane_counts.to_lay_out(session, most=LANES_A_TURN, after=self._laid_out_to)
            left = room(session, self._with.running_bounds(), lanes)
        # Those that are full or at a bound stay where they are in the order: they must not hide the others.
        self._laid_out_to = (lanes[-1].updated_at, lanes[-1].lane) if len(lanes) == LANES_A_TURN else (0, "")
        for count in lanes:
            laid_out = count.queued - count.waiting
            limit = ahead_limit(self._with.max_batch, self._with.weight(Lane.parse(count.lane)))
            bounded = left.left(count.client_id, count.model)
            # A batch at a time: a transaction for each job that leaves would cost more than the job.
            if bounded is None and laid_out > limit - self._with.max_batch:
                backlog = True
                continue
            if bounded == 0:
                continue
            with transaction(self._with.sessions) as session:
                entries = lay_out_entries(session, count.lane, limit, bounded)
            if entries:
                left.take(count.client_id, count.model, len(entries))
                self._add(count.lane, entries)
                backlog = True
        return backlog or self._laid_out_to != (0, "")

    def _add(self, lane: str, entries: list[tuple[int, int]]) -> None:
        key = self._keys.lane(lane)
        commands = [pack("XADD", key, "*", JOB_FIELD, job_entry(number, size)) for number, size in entries]
        self._wire.execute([*commands, pack("PEXPIRE", key, LANE_MILLISECONDS)])
        self._send([new for new in [self._ringer.due(Lane.parse(lane))] if new is not None])

    def _ring_all(self) -> None:
        """Ring for every lane in which jobs lie; where none was claimed since the last ring, on the next slot."""
        self._ringer.learn(self._wire.execute(self._ringer.question()))
        counts = self._page("ring")
        rings: list[Ring] = []
        for count in counts:
            lane = Lane.parse(count.lane)
            if count.queued < self._queued.get(count.lane, 0):
                self._ringer.answered(lane)
            rings += self._ringer.again([lane]) or filter(None, [self._ringer.due(lane)])
        self._queued = {count.lane: count.queued for count in counts}
        self._send(rings)

    def _page(self, name: str) -> Sequence[LaneCount]:
        """The next lanes to look at for a purpose: a few hundred a time, so that stuck ones keep nobody waiting."""
        with transaction(self._with.sessions, write=False) as session:
            counts = lane_counts.laid_out(session, most=LANES_A_TURN, after=self._pages.get(name, ""))
        self._pages[name] = counts[-1].lane if len(counts) == LANES_A_TURN else ""
        return counts

    def _send(self, rings: Sequence[Ring]) -> None:
        if not rings:
            return
        replies = self._wire.execute([command for new in rings for command in new.commands])
        for new in rings:
            own, replies = replies[: len(new.commands)], replies[len(new.commands) :]
            if new.started(own):
                self._with.publisher.drain(new.pool, new.slot, new.token)

    def _find_lost(self) -> None:
        names = [count.lane for count in self._page("lost")]
        if not names:
            return
        with transaction(self._with.sessions, write=False) as session:
            now = clock_ms(session)
        replies = self._wire.execute(
            [pack("TIME"), *(pack("XRANGE", self._keys.lane(name), "-", "+", "COUNT", 1) for name in names)]
        )
        skew = int(replies[0][0]) * 1000 + int(replies[0][1]) // 1000 - now
        for name, entries in zip(names, replies[1:], strict=True):
            if isinstance(entries, Exception):
                continue
            since = entry_ms(entries[0][0]) - skew - CLOCK_MARGIN_MILLISECONDS if entries else now
            with transaction(self._with.sessions) as session:
                found = take_back_lost(session, name, min(since, now - LOST_AFTER_MILLISECONDS))
            if found:
                metrics.REDISPATCHED.inc(found)
                log.warning("%d jobs of lane %s were no longer in Redis; they are laid out again", found, name)
