"""Attempts to sign in: who may make the next one, and when.

Three bounds, each of which ends by itself, in the memory of this process:

* from one address for one name (`Failures`): nobody is hindered by what comes from elsewhere;
* for one name from everywhere: after a burst, one attempt a minute, for guessing from many addresses. It does not count
  for an address from which the person signed in within a day, nor in a browser with the mark of an earlier success:
  strangers cannot keep somebody out of where they usually sign in from;
* in a marked browser: as from one address.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from auth.devices import Devices
from auth.errors import FailuresTooMany
from auth.failures import Failures, Source, source_of

BURST = 30
PAUSE_SECONDS = 60.0
KNOWN_SECONDS = 86_400.0
CAPACITY = 10_000

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody who says that this is their name; `mark` is what the browser's device cookie says, if it has one."""

    name: str
    address: str
    mark: str | None = None


class Attempts:
    """Lets attempts through or tells them to wait; safe for several threads."""

    def __init__(self, failures: Failures, devices: Devices, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._failures = failures
        self._devices = devices
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[Source, float] = {}  # until when an address counts as one of that name's
        self._paid: dict[str, float] = {}  # by name: the moment up to which attempts are paid for (GCRA)

    def require_patience(self, attempt: Attempt) -> None:
        """Raises FailuresTooMany with the seconds to wait. To be called once, before the password is checked."""
        self._failures.require_few(*self._source(attempt))
        if not self._is_known(attempt):
            self._charge(attempt.name[:128])

    def failed(self, attempt: Attempt) -> None:
        """One more failure of this address, or of this marked browser."""
        self._failures.count(*self._source(attempt))

    def succeeded(self, attempt: Attempt) -> None:
        """The address counts as this person's for a day, and its failures are forgotten."""
        self._failures.forget(*self._source(attempt))
        with self._lock:
            _put(self._known, source_of(attempt.address, attempt.name), self._clock() + KNOWN_SECONDS)

    def _source(self, attempt: Attempt) -> Source:
        number = self._devices.known(attempt.mark, attempt.name)
        return (attempt.address if number is None else f"browser {number}"), attempt.name

    def _is_known(self, attempt: Attempt) -> bool:
        if self._devices.known(attempt.mark, attempt.name) is not None:
            return True
        return self._known.get(source_of(attempt.address, attempt.name), 0.0) > self._clock()

    def _charge(self, name: str) -> None:
        # Before the check and not after it: of many attempts at once, no more get through than of as many in a row.
        with self._lock:
            now = self._clock()
            paid = max(self._paid.get(name, now), now)
            wait = paid - now - (BURST - 1) * PAUSE_SECONDS
            if wait > 0:
                raise FailuresTooMany(
                    "too many attempts for this name from unknown places; wait before the next one",
                    retry_after_seconds=math.ceil(wait),
                )
            _put(self._paid, name, paid + PAUSE_SECONDS)


def _put(table: dict[Key, float], key: Key, value: float) -> None:
    table.pop(key, None)
    while len(table) >= CAPACITY:
        del table[next(iter(table))]
    table[key] = value
