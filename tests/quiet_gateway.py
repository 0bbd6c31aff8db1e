"""A gateway for tests of routes that need SQL only: the whole application over real HTTP, its queue not started."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path

import httpx

from auth import clients
from auth.scopes import Scope
from gateway.app import create_app
from gateway.parts import Parts
from gateway.settings import GatewaySettings
from model_store.database import transaction
from tests.databases import make_tables
from tests.live_gateway import listening
from tests.plain_http import NO_TLS


class QuietGateway:
    """The application with its client, and shortcuts to clients of its own."""

    def __init__(self, http: httpx.Client, parts: Parts) -> None:
        self.http = http
        self.parts = parts

    def client(self, name: str, scopes: Collection[Scope] = (Scope.PREDICT, Scope.JOBS)) -> tuple[str, str]:
        """Id and secret of a new client."""
        with transaction(self.parts.sessions) as session:
            made, secret = clients.create(session, name, scopes, self.parts.settings.pepper)
        self.parts.snapshot.refresh()
        return made.id, secret

    def token(self, client_id: str, secret: str, **form: str) -> str:
        answer = self.http.post(
            "/oauth/token", data={"grant_type": "client_credentials", **form}, auth=(client_id, secret)
        )
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def headers(self, name: str, scopes: Collection[Scope]) -> dict[str, str]:
        """The Authorization header of a new client."""
        return bearer(self.token(*self.client(name, scopes)))


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


@contextlib.contextmanager
def quiet_gateway(folder: Path, **settings: object) -> Iterator[QuietGateway]:
    """A gateway with all its files in `folder`; `settings` replace those of the test."""
    made = GatewaySettings(
        **{
            "database_url": f"sqlite:///{folder / 'sluice.db'}",
            "store_dir": folder / "store",
            "keys_dir": folder / "keys",
            "client_secret_key": "k" * 32,
            "master_key": "m" * 43,
            "redis_url": "redis://127.0.0.1:1/0",
            **settings,
        }
    )
    make_tables(made)
    app = create_app(made)
    parts: Parts = app.state.parts
    parts.snapshot.start()
    try:
        # Without its lifespan, which starts what belongs to the queue.
        with listening(app, lifespan="off") as url, httpx.Client(base_url=url, timeout=30, verify=NO_TLS) as http:
            yield QuietGateway(http, parts)
    finally:
        parts.snapshot.close()
        parts.engine.dispose()
