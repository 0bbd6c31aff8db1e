"""What callers are told of limits: the fields RateLimit and RateLimit-Policy, and refusals that carry them.

The fields are those of draft-ietf-httpapi-ratelimit-headers-10: lists of strings, one for each policy, with `q` (quota)
and `w` (window in seconds), and with `r` (what remains) and `t` (seconds until it is whole again).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from model_store.errors import SluiceError
from monitoring.metrics import LIMITED

DAY_SECONDS = 86_400


class Kind(StrEnum):
    """What a limit is about; the label of the metric."""

    RATE = "rate"
    INSTANCES = "instances"
    BYTES = "bytes"
    CONCURRENT = "concurrent"
    QUEUED = "queued"


CODES = {
    Kind.RATE: "rate_limited",
    Kind.INSTANCES: "quota_spent",
    Kind.BYTES: "quota_spent",
    Kind.CONCURRENT: "too_many_concurrent",
    Kind.QUEUED: "too_many_queued",
}

# The draft registers these; instances are a unit of our own.
UNITS = {
    Kind.RATE: "requests",
    Kind.INSTANCES: "instances",
    Kind.BYTES: "content-bytes",
    Kind.CONCURRENT: "concurrent-requests",
    Kind.QUEUED: "queued-jobs",
}


@dataclass(frozen=True, slots=True)
class Policy:
    """A limit as it is told; `model` is the one that it is about, '' for all."""

    kind: Kind
    model: str
    quota: int
    window_seconds: int | None = None

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.model}" if self.model else str(self.kind)

    @property
    def text(self) -> str:
        window = "" if self.window_seconds is None else f";w={self.window_seconds}"
        return f'"{self.name}";q={self.quota};qu="{UNITS[self.kind]}"{window}'

    def standing(self, left: int, seconds: float) -> str:
        """What remains now."""
        return f'"{self.name}";r={max(0, left)};t={math.ceil(seconds)}'


class LimitReached(SluiceError):
    """A client asked for more than its limits allow."""

    status = 429

    def __init__(self, policy: Policy, message: str, wait_seconds: float, policies: Sequence[Policy] = ()) -> None:
        seconds = max(1, math.ceil(wait_seconds))
        super().__init__(f"{message}; try again in {seconds} s", retry_after_seconds=seconds)
        self.code = CODES[policy.kind]
        self.headers = refusal_headers(policy, seconds, policies)
        LIMITED.labels(policy.kind).inc()


def refusal_headers(policy: Policy, seconds: int, policies: Sequence[Policy] = ()) -> dict[str, str]:
    """The fields of a refusal by one of a client's policies."""
    others = [other for other in policies if other != policy]
    return {
        "ratelimit-policy": ", ".join(other.text for other in (policy, *others)),
        "ratelimit": policy.standing(0, seconds),
    }
