"""First loads: a version is loaded before anything is taken from its lanes, and by one slot of its pool at a time.

Whoever waits for a busy slot rings the version's next one. If that took entries at once, their callers would wait for
its load, of seconds where TensorFlow is started, while the slot that has the version becomes free; and each slot that
is rung in the meantime would load it too.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Set
from enum import Enum, auto

from model_store.errors import SluiceError
from workers.hot_lanes import HotLane, Version
from workers.lanes import Keys
from workers.reading import Reading
from workers.redis_link import Wire, pack
from workers.running import Running

log = logging.getLogger(__name__)

# As a slot's own key: a process that dies while it loads keeps nobody from it for longer.
TURN_MILLISECONDS = 3000
RENEW_SECONDS = 1.0


class Arrival(Enum):
    """What becomes of a lane that was rung here."""

    READ = auto()
    LOAD = auto()  # read it once the version is loaded
    LEAVE = auto()  # nothing waits in it, or another slot is loading its version


class FirstLoads:
    """Of one session. Its loop calls all but `load`, which is for a thread."""

    def __init__(
        self,
        wire: Wire,
        keys: Keys,
        place: tuple[str, str],
        reading: Reading,
        running: Running,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wire = wire
        self._keys = keys
        self._pool, self._slot = place
        self._reading = reading
        self._running = running
        self._clock = clock
        self._under_way: set[Version] = set()
        self._renewed_at = 0.0

    @property
    def under_way(self) -> Set[Version]:
        """The versions whose lanes are not to be read now."""
        return self._under_way

    def arrival(self, hot: HotLane) -> Arrival:
        """What to do with a lane that was cold; where it is LOAD, `load` has to follow. Raises redis.RedisError."""
        known = hot.version in self._under_way or self._running.cache.peek(*hot.version) is not None
        if known or hot.quarantined:
            return Arrival.READ
        # Whoever lays something out now rings again within a second, if nobody has taken it by then.
        if not self._reading.anything(hot.key) or not self._take_turn(hot.version):
            return Arrival.LEAVE
        self._under_way.add(hot.version)
        return Arrival.LOAD

    def load(self, version: Version) -> list[bytes]:
        """Load a version; returns packed commands that end the turn. A failure is left to those who ask next."""
        try:
            self._running.load(version)
        except SluiceError as error:
            log.info("version %d of %s could not be loaded: %s", version[1], version[0], error.message)
        finally:
            self._under_way.discard(version)
        return [pack("DEL", self._turn(version))]

    def renew(self) -> None:
        """Keep the turns of what is being loaded; to be called several times a second. Raises redis.RedisError."""
        now = self._clock()
        if self._under_way and now - self._renewed_at >= RENEW_SECONDS:
            self._renewed_at = now
            turns = [self._turn(version) for version in list(self._under_way)]
            self._wire.execute([pack("PEXPIRE", turn, TURN_MILLISECONDS) for turn in turns])

    def _take_turn(self, version: Version) -> bool:
        turn = self._turn(version)
        mine, holder = self._wire.execute(
            [pack("SET", turn, self._slot, "NX", "PX", TURN_MILLISECONDS), pack("GET", turn)]
        )
        # Its own: that of a session before this one, which ended while it loaded.
        return mine is not None or holder == self._slot.encode()

    def _turn(self, version: Version) -> bytes:
        return self._keys.loading(self._pool, *version)
