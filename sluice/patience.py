"""Asking again: which failures pass by themselves, how long to wait for them, and when it has been enough."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from itertools import count
from typing import TypeAlias

import httpx

from sluice.answers import (
    AnswerLate,
    BodyBroken,
    DeadlinePassed,
    RateLimited,
    Refused,
    SluiceFailed,
    Unavailable,
    Unreachable,
    refusal,
)
from sluice.exchange import Asked, Pause, Steps, T, ask
from sluice.submit_options import KEY

Kinds: TypeAlias = tuple[type[SluiceFailed], ...]

PATIENCE_SECONDS = 30.0
FIRST_PAUSE_SECONDS = 0.25
LONGEST_PAUSE_SECONDS = 8.0
# What passes by itself; for who only looks, also that a proxy waited in vain.
PASSING: Kinds = (Unreachable, RateLimited, Unavailable)
AWAY: Kinds = (*PASSING, DeadlinePassed)
# A prediction that killed what ran it is not to kill everything else in turn.
MOST_CRASHES = 2
# A gateway that refuses a body without reading it closes the connection, and its answer may be lost with that.
LARGE_BYTES = 1024 * 1024
MOST_BREAKS = 3


def persistently(asked: Asked, patience_seconds: float, passing: Kinds = PASSING) -> Steps[httpx.Response]:
    """The good answer to a request that may be sent again; see `repeated`."""

    size, breaks = len(asked.content) if isinstance(asked.content, bytes) else 0, 0

    def once() -> Steps[httpx.Response]:
        nonlocal breaks
        try:
            response = yield from ask(asked)
        except Unreachable as error:
            if error.late and asked.method == "POST" and KEY not in asked.headers:
                raise AnswerLate(f"{error}: wait longer (timeout_seconds), or submit a job") from error
            breaks += error.broken and size > LARGE_BYTES
            if breaks >= MOST_BREAKS:
                raise BodyBroken(f"{error}; {size} bytes may be more than it takes in one request") from error
            raise
        if not response.is_success:
            raise refusal(response)
        return response

    return repeated(once, patience_seconds, passing)


def repeated(once: Callable[[], Steps[T]], patience_seconds: float, passing: Kinds = PASSING) -> Steps[T]:
    """What the steps give, taken again while they fail with something that passes, for so long in all.

    Waits as long as `Retry-After` says, and otherwise twice as long each time; a part of it is chance, so that many
    who were refused together do not come back together. Raises the last failure.
    """
    until = time.monotonic() + patience_seconds
    crashes = 0
    for attempt in count():
        try:
            return (yield from once())
        except (Unreachable, Refused) as error:
            crashes += is_crash(error)
            pause = pause_after(error, attempt)
            if not passes(error, passing) or crashes >= MOST_CRASHES or time.monotonic() + pause > until:
                raise
        yield Pause(pause)
    raise AssertionError("a loop without an end")


def passes(error: SluiceFailed, passing: Kinds = PASSING) -> bool:
    """Whether the same request may well succeed later."""
    return isinstance(error, passing) and not (isinstance(error, Unreachable) and not error.passes)


def is_crash(error: SluiceFailed) -> bool:
    """Whether this comes from a worker, not from a gateway or what stands before one, which have a code or no id."""
    return isinstance(error, Unavailable) and error.code is None and error.request_id is not None


def pause_after(error: SluiceFailed, attempt: int) -> float:
    """Seconds to wait after the failure of an attempt, counted from 0."""
    longest = min(FIRST_PAUSE_SECONDS * 2.0**attempt, LONGEST_PAUSE_SECONDS)
    jitter = random.uniform(0.5, 1.0)  # noqa: S311 - spreads callers, guards nothing
    told = error.retry_after_seconds if isinstance(error, Refused) else None
    return longest * jitter if told is None else told + longest * (jitter - 0.5)
