"""What Redis says of its own commands: their mean times, and those that were slow."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import redis

from benchmarks.system import System

SLOW_MICROSECONDS = 2000
PING_SECONDS = 0.01
FEWEST_CALLS = 10


@dataclass(slots=True)
class RedisTimes:
    """Microseconds by command and call, on average; commands slower than two milliseconds; milliseconds of PINGs."""

    by_command: Mapping[str, float] = field(default_factory=dict)
    slow: list[str] = field(default_factory=list)
    pings: list[float] = field(default_factory=list)

    @property
    def ping_p50(self) -> float:
        return median(self.pings) if self.pings else 0.0

    @property
    def ping_longest(self) -> float:
        return max(self.pings, default=0.0)


@contextlib.contextmanager
def watched(system: System) -> Iterator[RedisTimes]:
    """Redis's times during the block; they are known after it."""
    found = RedisTimes()
    client = redis.Redis.from_url(system.folder.redis_url.read_text())
    client.config_set("slowlog-log-slower-than", SLOW_MICROSECONDS)
    client.config_resetstat()
    client.slowlog_reset()
    stop = threading.Event()
    pinging = threading.Thread(target=_ping, args=(client, stop, found.pings), daemon=True)
    pinging.start()
    try:
        yield found
    finally:
        stop.set()
        pinging.join(5)
        found.by_command = _by_command(client.info("commandstats"))
        found.slow = [f"{_name(entry['command'])} {entry['duration']} µs" for entry in client.slowlog_get(128)]
        client.close()


def slowdown(small: RedisTimes, large: RedisTimes) -> tuple[str, float]:
    """The command whose mean time grew most, and how many times it is longer."""
    both = small.by_command.keys() & large.by_command.keys()
    grown = {name: large.by_command[name] / max(small.by_command[name], 1.0) for name in both}
    return max(grown.items(), key=lambda item: item[1], default=("none", 0.0))


def _ping(client: redis.Redis, stop: threading.Event, pings: list[float]) -> None:
    while not stop.wait(PING_SECONDS):
        started = time.perf_counter()
        client.ping()
        pings.append((time.perf_counter() - started) * 1000)


def _by_command(stats: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    # A command that waits counts as long as it waits: Redis leaves its blocked time out, so all may be compared.
    return {
        name.removeprefix("cmdstat_"): float(values["usec_per_call"])
        for name, values in stats.items()
        if int(values["calls"]) >= FEWEST_CALLS
    }


def _name(command: bytes) -> str:
    return b" ".join(command.split()[:2]).decode("ascii", "replace")
