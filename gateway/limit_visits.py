"""One request under its client's limits: let in, counted while it is answered, charged for what it used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from auth.rights import ClientRights
from gateway.limit_accounts import Account

RawHeaders = list[tuple[bytes, bytes]]

TOLD_SECONDS = 0.01
# What is used within that time is no news to a caller that has so much left.
MUCH = 1000


class Plan:
    """What a client's requests for one model have to keep to; worked out once for each picture of rights.

    `most_queued` and `most_queued_of_model` are None where the client has no bound of its own; `bounds_running` tells
    whether there is one on its running jobs, which the dispatcher keeps.
    """

    def __init__(
        self,
        rights: ClientRights,
        accounts: Sequence[Account],
        body_bytes: int,
        most_queued: int | None = None,
        most_queued_of_model: int | None = None,
        *,
        bounds_running: bool = False,
    ) -> None:
        self.rights = rights
        self.body_bytes = body_bytes
        self.most_queued = most_queued
        self.most_queued_of_model = most_queued_of_model
        self.bounds_running = bounds_running
        self.placed = tuple(account for account in accounts if account.bounds.concurrent_requests is not None)
        self.metered = tuple(account for account in accounts if account.metered)
        self.rated = tuple(account for account in accounts if account.rate is not None)
        self._told = tuple(account for account in accounts if account.told)
        policies = ", ".join(policy.text for account in self._told for policy in account.told)
        self._policy = (b"ratelimit-policy", policies.encode())
        self._headers: RawHeaders = []
        self._headers_until = 0.0

    def headers(self) -> RawHeaders:
        """The fields of an answer to a client that has a rate or a quota; else none.

        They cost more to write than all the rest here, so they may be some milliseconds old while much is left.
        """
        if not self._told:
            return []
        now = time.monotonic()
        if now >= self._headers_until:
            standings = ", ".join([text for account in self._told for text in account.standings()])
            self._headers = [self._policy, (b"ratelimit", standings.encode())]
            least = min(account.least_left() for account in self._told)
            self._headers_until = now + TOLD_SECONDS if least > MUCH else 0.0
        return list(self._headers)


class Visit:
    """A request from when its model is known until it is answered; as a context, it holds a place for that long.

    Entering raises LimitReached.
    """

    __slots__ = ("plan",)

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def __enter__(self) -> Self:
        plan = self.plan
        for account in plan.placed:
            account.check_places()
        for account in plan.metered:
            # The least that a request brings.
            account.check_quotas(1, 1)
        for account in plan.placed:
            account.active += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for account in self.plan.placed:
            account.active -= 1

    def take(self) -> bool:
        """Whether there is a token of every rate, here and now; otherwise `wait` has to be asked."""
        rated = self.plan.rated
        for number, account in enumerate(rated):
            if account.rate is not None and not account.rate.take():
                _put_back(rated[:number])
                return False
        return True

    async def wait(self) -> None:
        """Take the tokens, asking Redis for those that are not here; raises LimitReached."""
        rated = self.plan.rated
        for number, account in enumerate(rated):
            rate = account.rate
            if rate is not None and not rate.take() and not await rate.wait():
                _put_back(rated[:number])
                raise account.too_fast()

    def read(self, size: int) -> None:
        """The request's body has so many bytes; raises LimitReached where that is more than today's quota has left."""
        for account in self.plan.metered:
            account.check_quotas(1, size)
        for account in self.plan.metered:
            account.usage.charge(0, size)

    def answered(self, instances: int) -> None:
        """The answer has so many instances. They were not known before: the last answer may go over the quota."""
        for account in self.plan.metered:
            account.usage.charge(instances, 0)

    @contextlib.contextmanager
    def submitting(self, instances: int) -> Iterator[None]:
        """Charge a job's instances, given back if it does not come to be; raises LimitReached where few are left."""
        for account in self.plan.metered:
            account.check_quotas(instances, 0)
        self.answered(instances)
        try:
            yield
        except BaseException:  # given back and raised again
            self.answered(-instances)
            raise

    def headers(self) -> RawHeaders:
        """As the plan's."""
        return self.plan.headers()


def _put_back(accounts: tuple[Account, ...]) -> None:
    for account in accounts:
        if account.rate is not None:
            account.rate.put_back()
