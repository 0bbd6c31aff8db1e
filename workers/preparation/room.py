"""How much memory one version may take where it will serve: the largest of the budgets of its pool's workers."""

from __future__ import annotations

import contextlib

import redis

from workers import redis_link
from workers.errors import PredictorTooLarge
from workers.lanes import Keys
from workers.loaded_versions import budget_of, budget_question
from workers.redis_link import Wire
from workers.settings import WorkerSettings
from workers.slots import announced


def room_bytes(settings: WorkerSettings, pool: str | None = None) -> int:
    """What the workers say that are there; this worker's own setting where there are none, or Redis is away."""
    try:
        with contextlib.closing(redis_link.connect(settings)) as client:
            return max(_announced(client, settings, pool or settings.pool), default=settings.predictor_budget_bytes)
    except redis.RedisError:
        return settings.predictor_budget_bytes


def check_room(needed_bytes: int, room: int) -> None:
    """Raises PredictorTooLarge, with both figures, for a variant that no worker could load."""
    if needed_bytes > room:
        raise PredictorTooLarge.by(needed_bytes, room)


def _announced(client: redis.Redis, settings: WorkerSettings, pool: str) -> list[int]:
    keys = Keys(settings.key_prefix)
    slots = announced(client, keys, pool)
    if not slots:
        return []
    with contextlib.closing(Wire(client)) as wire:
        replies = wire.execute([budget_question(keys, pool, slot) for slot in slots])
    return [budget for reply in replies if (budget := budget_of(reply)) is not None]
