"""A clock that never goes back: what has expired stays expired, whoever sets the machine's clock."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)

NOTICED_SECONDS = 5.0


class ForwardClock:
    """Seconds since 1970, told by the database at every look and carried on between them by the monotonic clock.

    So neither a gateway's own clock that is wrong, nor any clock that is set back, makes an expired token good again.
    The price: after a clock that was ahead was put right, time stands as it was until the gateway is started again;
    the log says so.
    """

    __slots__ = ("_monotonic", "_told", "_warned", "_zero")

    def __init__(
        self, *, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._monotonic = monotonic
        # Seconds since 1970 at the monotonic clock's zero; by this machine's clock until the database was asked.
        self._zero = wall() - monotonic()
        self._told = False
        self._warned = False

    def now(self) -> float:
        """Seconds since 1970."""
        # Asked for each request: an addition and one call are all that it may cost.
        return self._zero + self._monotonic()

    def observe(self, seconds: float) -> None:
        """What the database's clock says now."""
        zero = seconds - self._monotonic()
        if not self._told or zero >= self._zero:
            self._zero = zero
            self._told = True
            self._warned = False
        elif self._zero - zero > NOTICED_SECONDS and not self._warned:
            self._warned = True
            log.warning(
                "the database's clock went back by %.0f s: tokens are judged by the later time until a restart",
                self._zero - zero,
            )
