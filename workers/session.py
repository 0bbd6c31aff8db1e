"""One session of a slot, from its token to its end."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

import redis

from monitoring import metrics
from workers.answering import Answering
from workers.child import Child
from workers.drain import Drain, Slot
from workers.heart import Heart
from workers.job_batches import JobBatches
from workers.lanes import Keys, consumer_of
from workers.lookout import Lookout
from workers.outbox import Outbox
from workers.running import Running
from workers.watchdog import Record, Watchdog


def run_session(child: Child, slot: Slot, stopping: Callable[[], bool]) -> str:
    """Run one session if the slot's key still holds its token; returns why it ended."""
    keys = Keys(child.settings.key_prefix)
    try:
        if child.client.get(keys.drain(slot.pool, slot.name)) != slot.token.encode():
            return "outdated"
        heart = Heart(child.client, keys, (slot.pool, slot.name), slot.token, child.sessions)
        heart.start()
    except redis.RedisError:
        # Whoever waits rings again once Redis is back.
        return "redis away"
    settings = child.settings
    # Each is closed whatever becomes of the others: a heart that beats on would keep the slot from every later session.
    with ExitStack() as stack:
        outbox = Outbox(child.client)
        stack.callback(outbox.close)
        stack.callback(heart.close)
        watchdog = Watchdog(
            Record(settings.scratch_dir, slot.name),
            settings.hang_limit_seconds,
            deadly=settings.worker_execution == "prefork",
        )
        stack.callback(watchdog.close)
        running, consumer = Running(child.cache, watchdog, child.pools), consumer_of(slot.pool, slot.name)
        lookout = Lookout(child.client, keys, (slot.pool, slot.name), child.watch, child.uses, child.statistics)
        stack.callback(lookout.close)
        lookout.start()
        tallies = child.statistics.tallies
        jobs = JobBatches(settings, child.sessions, child.artifacts, running, heart, stopping, tallies=tallies)
        answering = Answering(running, jobs, outbox, consumer, stopping)
        ending = Drain(slot, child.client, keys, heart, answering, child.publisher).run()
    metrics.DRAIN_SESSIONS.labels(ending.replace(" ", "_")).inc()
    return ending
