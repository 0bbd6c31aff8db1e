"""Moves of versions over HTTP: what is to come back is loaded first, outside any transaction, and only then moved."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict, Field

from gateway.dependencies import open_session, read_session
from gateway.parts import Parts
from model_store.errors import SluiceError
from workers.rehearsal import RehearsalFailed
from workers.warm_up import WARM_SECONDS, warm_up

log = logging.getLogger(__name__)

# Each holds one of the gateway's threads for up to half a minute, and tokens are issued by the same threads.
MOST_AT_ONCE = 4
PLACES = threading.BoundedSemaphore(MOST_AT_ONCE)
RETRY_SECONDS = 5

# For routes that look, take seconds, and then write: a transaction is not held meanwhile.
writing = contextlib.contextmanager(open_session)
reading = contextlib.contextmanager(read_session)


class WarmUpFailed(SluiceError):
    """A version that is to come back fails on its own golden samples: nothing was moved."""

    status = 409
    code = "warm_up_failed"


class MovesBusy(SluiceError):
    """As many versions as may be at a time are being tried or warmed up."""

    status = 503
    code = "moves_busy"


class WarmedUp(BaseModel):
    """A version that came back, and what its warm-up found."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"version": 1, "detail": "w1.0 loaded it and answered 1 request in 0.04 s", "seconds": 0.04}]
        }
    )

    version: int
    detail: str = Field(description="Which slot loaded it and how long that took, or why it comes back cold.")
    seconds: float | None = Field(description="Null where it comes back cold.")


def warm(parts: Parts, model: str, numbers: Sequence[int]) -> list[WarmedUp]:
    """Has versions loaded, one after the other, where their callers will be sent; takes no longer than one may.

    Raises WarmUpFailed, MovesBusy.
    """
    if not numbers:
        return []
    with place():
        return _warm_all(parts, model, numbers)


@contextlib.contextmanager
def place() -> Iterator[None]:
    """One of the few threads that may wait for workers at a time; raises MovesBusy where all are taken."""
    if not PLACES.acquire(blocking=False):
        raise MovesBusy(
            "other versions are being tried or warmed up; try again shortly", retry_after_seconds=RETRY_SECONDS
        )
    try:
        yield
    finally:
        PLACES.release()


def _warm_all(parts: Parts, model: str, numbers: Sequence[int]) -> list[WarmedUp]:
    until = time.monotonic() + WARM_SECONDS
    return [_warm(parts, model, number, max(0.0, until - time.monotonic())) for number in numbers]


def _warm(parts: Parts, model: str, number: int, seconds: float) -> WarmedUp:
    try:
        warmed = warm_up(parts.sessions, parts.artifacts, parts.settings, model, number, seconds)
    except RehearsalFailed as error:
        raise WarmUpFailed(f"version {number} does not come back: it answers its golden samples {error}") from error
    return WarmedUp(
        version=number, detail=warmed.told, seconds=None if warmed.slot is None else round(warmed.seconds, 3)
    )
