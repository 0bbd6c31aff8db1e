"""Where a client stands at this gateway with its limits on one model, or with those on everything."""

from __future__ import annotations

import math

from auth.limits import Bounds
from auth.quotas import Place
from gateway.limit_headers import DAY_SECONDS, Kind, LimitReached, Policy
from gateway.limit_quotas import Quotas, Usage
from gateway.limit_rates import Rate

# Places are freed by answers, which nobody can foretell.
PLACE_WAIT_SECONDS = 1


class Account:
    """The bounds of one place and what is used of them; `active` are its requests here, `elsewhere` at other gateways.

    What each request looks at are numbers: a bound that there is not is infinite.
    """

    def __init__(self, place: Place, quotas: Quotas) -> None:
        self.place = place
        self.active = 0
        self.elsewhere = 0
        self._quotas = quotas
        self.keep_to(Bounds(), None)

    def keep_to(self, bounds: Bounds, rate: Rate | None) -> None:
        """Other bounds from now on; requests that are being answered still count."""
        self.bounds = bounds
        self.rate = rate
        self.most_active = _most(bounds.concurrent_requests)
        self.most_instances = _most(bounds.instances_per_day)
        self.most_bytes = _most(bounds.bytes_per_day)
        self.usage = self._quotas.usage(self.place) if self.metered else Usage()
        self.policies = _policies(self.place[1], bounds, rate)
        self._by_kind = {policy.kind: policy for policy in self.policies}

    @property
    def told(self) -> tuple[Policy, ...]:
        """The policies that every answer tells of: a bound on what is at once is told by its refusals only."""
        return tuple(policy for policy in self.policies if policy.kind is not Kind.CONCURRENT)

    @property
    def metered(self) -> bool:
        """Whether what is used has to be known to other gateways and tomorrow's."""
        return self.bounds.instances_per_day is not None or self.bounds.bytes_per_day is not None

    def check_places(self) -> None:
        """Whether one more request may be answered now; raises LimitReached."""
        if self.active + self.elsewhere >= self.most_active:
            text = f"{self.most_active} requests of this client{self._where} are being answered already"
            raise self._reached(Kind.CONCURRENT, text, PLACE_WAIT_SECONDS)

    def check_quotas(self, instances: int, size: int) -> None:
        """Whether so many instances and bytes are left of today; raises LimitReached."""
        usage = self.usage
        if usage.instances + instances > self.most_instances:
            raise self._spent(Kind.INSTANCES, f"{self.most_instances} instances")
        if usage.bytes + size > self.most_bytes:
            raise self._spent(Kind.BYTES, f"{self.most_bytes} bytes")

    def least_left(self) -> float:
        """The smallest number of those that `standings` tells."""
        rate = math.inf if self.rate is None else self.rate.left()
        return min(rate, self.most_instances - self.usage.instances, self.most_bytes - self.usage.bytes)

    def standings(self) -> list[str]:
        """What remains of the rate and of today's quotas, for the field RateLimit."""
        found = []
        if self.rate is not None:
            left = self.rate.left()
            found.append(self._by_kind[Kind.RATE].standing(left, (self.rate.burst - left) / self.rate.rate))
        if self.bounds.instances_per_day is not None:
            left = self.bounds.instances_per_day - self.usage.instances
            found.append(self._by_kind[Kind.INSTANCES].standing(left, self._quotas.seconds_left()))
        if self.bounds.bytes_per_day is not None:
            left = self.bounds.bytes_per_day - self.usage.bytes
            found.append(self._by_kind[Kind.BYTES].standing(left, self._quotas.seconds_left()))
        return found

    def too_fast(self) -> LimitReached:
        """What a request is told for which there is no token."""
        rate = self.rate
        if rate is None:
            raise ValueError("this account has no rate")
        text = f"this client may make {rate.rate:g} requests a second{self._where}"
        return self._reached(Kind.RATE, text, rate.wait_seconds())

    @property
    def _where(self) -> str:
        return f" to {self.place[1]}" if self.place[1] else ""

    def _spent(self, kind: Kind, text: str) -> LimitReached:
        return self._reached(
            kind, f"this client's {text} of today{self._where} are used up", self._quotas.seconds_left()
        )

    def _reached(self, kind: Kind, text: str, wait_seconds: float) -> LimitReached:
        return LimitReached(self._by_kind[kind], text, wait_seconds, self.told)


def _most(bound: int | None) -> float:
    return math.inf if bound is None else bound


def _policies(model: str, bounds: Bounds, rate: Rate | None) -> tuple[Policy, ...]:
    found = []
    if rate is not None:
        # Windows are whole seconds: a burst that fills sooner is told as the rate of a second.
        window = max(1, math.ceil(rate.burst / rate.rate))
        found.append(Policy(Kind.RATE, model, max(1, math.floor(rate.rate * window)), window))
    if bounds.instances_per_day is not None:
        found.append(Policy(Kind.INSTANCES, model, bounds.instances_per_day, DAY_SECONDS))
    if bounds.bytes_per_day is not None:
        found.append(Policy(Kind.BYTES, model, bounds.bytes_per_day, DAY_SECONDS))
    if bounds.concurrent_requests is not None:
        found.append(Policy(Kind.CONCURRENT, model, bounds.concurrent_requests))
    return tuple(found)
