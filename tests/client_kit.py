"""What tests of the Python client share: logins at an installation that runs, and one way to call both clients."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Collection, Coroutine
from types import TracebackType
from typing import Any, Self

import httpx

from auth import clients
from auth.grants import GrantSpec, set_grants
from auth.limits import EVERYTHING, Bounds, set_limits
from auth.scopes import Scope
from model_store.database import transaction
from sluice import AsyncClient, Client
from tests.processes import PEPPER, Cluster, wait_for

Login = tuple[str, str, str]
CALLING = (Scope.PREDICT, Scope.JOBS, Scope.MODELS_READ, Scope.EXPLAIN)
_NUMBERS = itertools.count()


def login(
    serving: Cluster, *models: str | GrantSpec, scopes: Collection[Scope] = CALLING, bounds: Bounds | None = None
) -> Login:
    """Address, id and secret of a new client with grants on the models, once the gateway knows it."""
    grants = [GrantSpec(model) if isinstance(model, str) else model for model in models]
    with transaction(serving.sessions) as session:
        made, secret = clients.create(session, f"client-{next(_NUMBERS)}", scopes, PEPPER.encode())
        set_grants(session, made.id, grants)
        if bounds is not None:
            set_limits(session, made.id, {EVERYTHING: bounds})
    url, form = serving.gateways[0], {"grant_type": "client_credentials"}
    wait_for(lambda: httpx.post(f"{url}/oauth/token", data=form, auth=(made.id, secret)).is_success, 10)
    return url, made.id, secret


class Blocking:
    """An AsyncClient whose calls wait: what is tested with threads is tested with asyncio in the same words."""

    def __init__(self, *login: str, **options: Any) -> None:  # noqa: ANN401 - the client's own
        self._runner = asyncio.Runner()
        self._client = AsyncClient(*login, **options)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the client has
        return _blocking(self._runner, getattr(self._client, name))

    def __repr__(self) -> str:
        return repr(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        self._runner.close()


class _BlockingJob:
    def __init__(self, runner: asyncio.Runner, job: Any) -> None:  # noqa: ANN401 - an AsyncJob
        self._runner = runner
        self._job = job

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the job has
        return _blocking(self._runner, getattr(self._job, name))

    def __iter__(self) -> Any:  # noqa: ANN401 - its events
        return iter(_blocking(self._runner, self._job.events)())


def _blocking(runner: asyncio.Runner, member: Any) -> Any:  # noqa: ANN401 - a method or a value
    if not callable(member):
        return member

    async def listed(found: AsyncIterator[Any]) -> list[Any]:
        return [one async for one in found]

    def call(*given: Any, **options: Any) -> Any:  # noqa: ANN401 - as above
        found = member(*given, **options)
        if isinstance(found, Coroutine):
            found = runner.run(found)
        elif isinstance(found, AsyncIterator):
            return runner.run(listed(found))
        return _BlockingJob(runner, found) if hasattr(found, "cancel") else found

    return call


CLIENTS = (Client, Blocking)
