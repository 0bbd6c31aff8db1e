"""Limits of clients at this gateway: what each may ask for, and the upkeep of rates, places and quotas beside it.

Nothing here decides about rights. Where Redis or SQL cannot be asked, clients go on under what this gateway knows.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass

from auth.limits import EVERYTHING, Bounds
from auth.quotas import Place
from auth.rights import ClientRights, Rights
from gateway.admission import Knowledge
from gateway.limit_accounts import Account
from gateway.limit_places import Places
from gateway.limit_quotas import Quotas
from gateway.limit_rates import Rate
from gateway.limit_visits import Plan, Visit
from gateway.settings import GatewaySettings
from gateway.wire import Wire
from model_store.database import Sessions
from model_store.errors import DatabaseUnavailable

log = logging.getLogger(__name__)

PLACES_SECONDS = 0.2
QUOTAS_SECONDS = 0.5
# A lease that takes longer has met a Redis that hangs.
PATIENCE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Need:
    """What the limits of a picture of rights need."""

    places: bool
    quotas: bool

    @classmethod
    def of(cls, rights: Rights, defaults: Bounds) -> Need:
        stored = [bounds for client in rights.clients.values() for bounds in (client.limits or {}).values()]
        every = [defaults, *stored]
        return cls(
            places=any(bounds.concurrent_requests is not None for bounds in every),
            quotas=any(bounds.instances_per_day is not None or bounds.bytes_per_day is not None for bounds in every),
        )


class Limits:
    """All of it runs on the event loop."""

    def __init__(self, settings: GatewaySettings, sessions: Sessions, snapshot: Knowledge, gateway: str) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._defaults = default_bounds(settings)
        self._wire = Wire(settings, patience_seconds=PATIENCE_SECONDS)
        self._places = Places(self._wire, settings.key_prefix, gateway)
        self._quotas = Quotas(sessions)
        self._accounts: dict[Place, Account] = {}
        self._plans: dict[tuple[str, str], Plan] = {}
        self._seen: Rights | None = None
        self._need = Need(places=False, quotas=False)
        self._database_away = False
        self._exchanging = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Learn what was used today, then keep up; a database that is away is no reason not to start."""
        await self._wire.start()
        await self._exchange_quotas()
        self._tasks = [
            asyncio.create_task(_repeatedly(PLACES_SECONDS, self._exchange_places)),
            asyncio.create_task(_repeatedly(QUOTAS_SECONDS, self._exchange_quotas)),
        ]

    async def close(self) -> None:
        # Between two exchanges: what an interrupted one sent, this process would send again.
        async with self._exchanging:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._exchange_quotas()
        await self._places.leave()
        await self._wire.close()

    def visit(self, rights: ClientRights, model: str) -> Visit:
        """A request of a client for a model that it may use."""
        plan = self._plans.get((rights.id, model))
        if plan is None or plan.rights is not rights:
            plan = self._plans[rights.id, model] = self._planned(rights, model)
        return Visit(plan)

    def _planned(self, rights: ClientRights, model: str) -> Plan:
        limits = rights.limits or {}
        of_client = limits.get(EVERYTHING, Bounds()).over(self._defaults)
        of_model = limits.get(model, Bounds())
        sizes = (self._settings.body_limit_bytes, of_client.body_bytes, of_model.body_bytes)
        accounts = (self._account((rights.id, EVERYTHING), of_client), self._account((rights.id, model), of_model))
        return Plan(
            rights,
            [account for account in accounts if account is not None],
            min(size for size in sizes if size is not None),
            of_client.queued_jobs,
            of_model.queued_jobs,
            bounds_running=of_client.running_jobs is not None or of_model.running_jobs is not None,
        )

    def _account(self, place: Place, bounds: Bounds) -> Account | None:
        """The place's account, as it was unless its bounds are others now; None where nothing has to be counted."""
        known = self._accounts.get(place)
        if known is not None and known.bounds == bounds:
            return known
        if known is None:
            if not _counted(bounds):
                return None
            known = self._accounts[place] = Account(place, self._quotas)
        known.elsewhere = self._places.elsewhere.get(place, 0)
        known.keep_to(bounds, self._rate(place, bounds, known))
        return known

    def _rate(self, place: Place, bounds: Bounds, known: Account) -> Rate | None:
        if bounds.requests_per_second is None:
            return None
        if known.rate is not None and _same_rate(known.bounds, bounds):
            return known.rate
        # A rate's count says nothing about another one: a client of one request a minute may have to wait for that
        # long, and must not when it is given a hundred a second.
        words = (self._settings.key_prefix, "rate", *place, f"{bounds.requests_per_second:g}", str(bounds.burst))
        return Rate(self._wire, ":".join(words).encode(), bounds.requests_per_second, bounds.burst)

    def _look(self) -> None:
        """Forget clients that are gone, once for each picture of rights."""
        rights = self._snapshot.rights
        if rights is self._seen:
            return
        self._seen, self._need = rights, Need.of(rights, self._defaults)
        self._plans.clear()
        for place in [place for place in self._accounts if place[0] not in rights.clients]:
            del self._accounts[place]

    async def _exchange_places(self) -> None:
        self._look()
        for account in self._accounts.values():
            if account.rate is not None:
                account.rate.return_unused()
        if self._need.places:
            await self._places.exchange(_concurrent(self._accounts.values()))
            for place, account in self._accounts.items():
                account.elsewhere = self._places.elsewhere.get(place, 0)

    async def _exchange_quotas(self) -> None:
        self._look()
        if not self._need.quotas:
            return
        try:
            async with self._exchanging:
                await self._quotas.exchange()
        except DatabaseUnavailable:
            if not self._database_away:
                log.warning("the database does not answer; what quotas were charged is kept until it does")
            self._database_away = True
        else:
            self._database_away = False


def default_bounds(settings: GatewaySettings) -> Bounds:
    """The bounds on everything of a client whose own limits name none; 0 in a setting is none."""
    return Bounds(
        requests_per_second=settings.client_requests_per_second or None,
        instances_per_day=settings.client_instances_per_day or None,
        bytes_per_day=settings.client_bytes_per_day or None,
        concurrent_requests=settings.client_concurrency or None,
    )


def _counted(bounds: Bounds) -> bool:
    """Whether these bounds are kept here: those of queued jobs and of single bodies need no account."""
    counts = (bounds.instances_per_day, bounds.bytes_per_day, bounds.concurrent_requests)
    return bounds.requests_per_second is not None or any(count is not None for count in counts)


def _same_rate(one: Bounds, other: Bounds) -> bool:
    return (one.requests_per_second, one.burst) == (other.requests_per_second, other.burst)


def _concurrent(accounts: Iterable[Account]) -> dict[Place, int]:
    return {
        account.place: account.active
        for account in accounts
        if account.active and account.bounds.concurrent_requests is not None
    }


async def _repeatedly(seconds: float, action: Callable[[], Coroutine[None, None, None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await action()
        except Exception:  # the task's edge: limits that are no longer kept up would refuse, or allow, for ever
            log.exception("limits could not be kept up")
