"""Crashes of prediction processes: counted against the version that was running, which rests after the third.

Only a crash in which exactly one version was running is counted, so that no version is blamed for its neighbour's
doing; after a crash everything runs singly, so a bad version soon stands alone. Kills by an operator do not count.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path

import redis

from monitoring import metrics
from workers.lanes import Keys
from workers.watchdog import read_record

log = logging.getLogger(__name__)

CRASHES = 3
WINDOW_SECONDS = 300
BY_OPERATOR = re.compile(r"signal (9|15)\b")


def note_crash(client: redis.Redis, keys: Keys, folder: Path, slot: str, reason: str) -> bool:
    """Count the end of a slot's process; returns whether a version was put into quarantine for it."""
    running = read_record(folder, slot)
    log.error("the prediction process of slot %s ended: %s; it was running %s", slot, reason, running or "nothing")
    if BY_OPERATOR.search(reason) or len(running) != 1:
        return False
    model, version = running[0]
    metrics.WORKER_CRASHES.labels(metrics.bounded(model), str(version)).inc()
    key, now = keys.crashes(model, version), time.time()
    pipeline = client.pipeline()
    pipeline.zadd(key, {f"{now}:{slot}": now})
    pipeline.zremrangebyscore(key, 0, now - WINDOW_SECONDS)
    pipeline.zcard(key)
    pipeline.pexpire(key, WINDOW_SECONDS * 1000)
    if pipeline.execute()[2] < CRASHES:
        return False
    client.set(keys.quarantine(model, version), "1", px=WINDOW_SECONDS * 1000)
    metrics.QUARANTINED_UNTIL.labels(model, str(version)).set(now + WINDOW_SECONDS)
    log.error("version %s of %s crashed %s times in five minutes; it rests for five", version, model, CRASHES)
    return True
