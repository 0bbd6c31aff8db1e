"""Concurrent requests: each gateway counts its own, tells the others through Redis, and adds theirs to its own."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

import hiredis

from auth.quotas import Place
from gateway.limit_rates import Redis
from model_store.errors import SluiceError
from workers.redis_link import Reply, pack

log = logging.getLogger(__name__)

# So long after it said so last, a gateway's requests no longer count: it is dead, or cut off.
PLACE_SECONDS = 3.0

# KEYS: the hash of all gateways. ARGV: this gateway, its counts as JSON, their time to live in milliseconds. Returns
# the counts of the others that are not older than that.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s', now, ARGV[2]))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
local all, others = redis.call('HGETALL', KEYS[1]), {}
for place = 1, #all, 2 do
  if all[place] ~= ARGV[1] then
    local told, counts = string.match(all[place + 1], '^(%d+) (.*)$')
    if told and now - tonumber(told) <= tonumber(ARGV[3]) then
      others[#others + 1] = counts
    else
      redis.call('HDEL', KEYS[1], all[place])
    end
  end
end
return others
"""


class Places:
    """How many requests of each client other gateways answer at this moment."""

    def __init__(self, redis: Redis, key_prefix: str, gateway: str) -> None:
        self._redis = redis
        self._key = f"{key_prefix}:concurrent".encode()
        self._gateway = gateway
        self._heard_at = float("-inf")
        self.elsewhere: Mapping[Place, int] = {}

    async def exchange(self, mine: Mapping[Place, int]) -> None:
        """Tell the others and hear from them. While Redis is away each gateway counts alone, after a while."""
        told = json.dumps([[*place, count] for place, count in mine.items()])
        command = pack("EVAL", SCRIPT, 1, self._key, self._gateway, told, int(PLACE_SECONDS * 1000))
        try:
            [reply] = await self._redis.execute([command])
        except SluiceError:
            reply = None
        if isinstance(reply, list):
            self.elsewhere = _added_up(reply)
            self._heard_at = time.monotonic()
            return
        if isinstance(reply, hiredis.ReplyError):
            log.warning("Redis does not count concurrent requests: %s", reply)
        if time.monotonic() - self._heard_at > PLACE_SECONDS:
            self.elsewhere = {}

    async def leave(self) -> None:
        """This gateway answers nothing any more."""
        try:
            await self._redis.execute([pack("HDEL", self._key, self._gateway)])
        except SluiceError:
            log.debug("Redis is away: this gateway's places run out by themselves")


def _added_up(replies: Sequence[Reply]) -> Mapping[Place, int]:
    total: Counter[Place] = Counter()
    for counts in replies:
        for client_id, model, count in json.loads(counts):
            total[client_id, model] += count
    return total
