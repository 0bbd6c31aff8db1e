"""RFC 8705 from end to end: a token that was fetched with a client certificate is of no use without it."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from auth import clients
from auth.scopes import Scope
from gateway.app import create_app
from gateway.certificates import ClientCertificates, LiveContext, TlsFiles
from gateway.settings import GatewaySettings
from model_store.database import transaction
from tests.authorities import Authority
from tests.databases import make_tables
from tests.live_gateway import listening


class Bound:
    """A gateway over TLS that asks for certificates and demands none, with a client of its own."""

    def __init__(self, url: str, authority: Authority, login: tuple[str, str]) -> None:
        self.url = url
        self.authority = authority
        self.login = login

    def token(self, context: ssl.SSLContext) -> str:
        form = {"grant_type": "client_credentials"}
        answer = httpx.post(f"{self.url}/oauth/token", data=form, auth=self.login, verify=context)
        return str(answer.raise_for_status().json()["access_token"])

    def status(self, token: str, context: ssl.SSLContext) -> int:
        headers = {"authorization": f"Bearer {token}"}
        return httpx.get(f"{self.url}/v1/models", headers=headers, verify=context).status_code


@pytest.fixture
def bound(tmp_path: Path) -> Iterator[Bound]:
    authority = Authority(tmp_path, "authority")
    server = authority.issue("server")
    settings = GatewaySettings(
        database_url=f"sqlite:///{tmp_path / 'sluice.db'}",
        store_dir=tmp_path / "store",
        keys_dir=tmp_path / "keys",
        client_secret_key="k" * 32,
        master_key="m" * 43,
        redis_url="redis://127.0.0.1:1/0",
    )
    make_tables(settings)
    app = create_app(settings)
    parts = app.state.parts
    parts.snapshot.start()
    with transaction(parts.sessions) as session:
        made, secret = clients.create(session, "bound", [Scope.MODELS_READ], settings.pepper)
    files = TlsFiles(server.certificate, server.key, authority.file, ClientCertificates.OPTIONAL)
    with listening(app, "off", tls=LiveContext(files)) as url:
        yield Bound(url, authority, (made.id, secret))
    parts.snapshot.close()
    parts.engine.dispose()


def test_a_token_fetched_with_a_certificate_is_good_with_that_one_only(bound: Bound):
    own, other = (bound.authority.trusted(bound.authority.issue(name)) for name in ("own", "other"))
    nothing = bound.authority.trusted()
    token = bound.token(own)
    assert bound.status(token, own) == 200
    assert bound.status(token, other) == 401
    assert bound.status(token, nothing) == 401
    # Known as good by now, it is still asked for its certificate.
    assert bound.status(token, own) == 200


def test_a_token_fetched_without_one_is_a_bearer_token(bound: Bound):
    token = bound.token(bound.authority.trusted())
    assert bound.status(token, bound.authority.trusted(bound.authority.issue("any"))) == 200
