"""The generic cell rate algorithm: when the next request is due, kept as one number; in Redis and in this process.

A client of `rate` requests a second may have `burst` of them at once. `due` is when all that were taken would have come
at the rate; it may lie ahead of now by as much as the burst. (ATM Forum, Traffic Management 4.0, section 4.4.2.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass

MICROSECONDS = 1_000_000
# Room is a quotient of doubles: a burst of three that comes out at 2.9999999 is three.
ROUNDING = 0.000001

# One clock for all gateways.
REDIS_CLOCK = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
"""

# KEYS: the client's. ARGV: microseconds between two requests, burst, how many are wanted; less than 0 gives back.
# Returns how many were taken, after how many microseconds there is room for one, and for how many there is room now.
TAKE = """
local step, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local due = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local room = math.max(0, math.floor((burst * step - (due - now)) / step + 0.000001))
local taken = math.min(wanted, room)
due = due + taken * step
local kept = math.max(0, math.ceil((due - now) / 1000)) + 1000
redis.call('SET', KEYS[1], string.format('%.3f', due), 'PX', kept)
return {taken, math.max(0, math.ceil(due - now + step - burst * step)), room - taken}
"""

SCRIPT = REDIS_CLOCK + TAKE


@dataclass(frozen=True, slots=True)
class Taken:
    """How many requests may go, after how many seconds there is room for one, and for how many there is room now."""

    count: int
    wait_seconds: float
    room: int


class Gcra:
    """The algorithm in this process, for as long as Redis is away; the script's twin, number for number."""

    def __init__(self, rate: float, burst: int) -> None:
        self.step = MICROSECONDS / rate
        self.burst = burst
        self._due = 0.0

    def take(self, wanted: int, now: float) -> Taken:
        """Take as many as wanted or as there is room for; `now` in microseconds."""
        due = max(now, self._due)
        # Differences first: a double of so many microseconds counts in quarters.
        room = max(0, math.floor((self.burst * self.step - (due - now)) / self.step + ROUNDING))
        taken = min(wanted, room)
        self._due = due = due + taken * self.step
        wait = max(0, math.ceil(due - now + self.step - self.burst * self.step))
        return Taken(taken, wait / MICROSECONDS, room - taken)
