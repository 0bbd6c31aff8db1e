"""gRPC over TLS with the gateway's own certificate: who connects, whose token is good, and files that change."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from auth import clients
from auth.scopes import Scope
from gateway.app import create_app
from gateway.certificates import LiveContext
from gateway.settings import GatewaySettings
from model_store.database import transaction
from sluice.listening_ports import free_port
from tests.authorities import Authority, Pair
from tests.conftest import RedisServer
from tests.databases import make_tables
from tests.grpc_kit import Refused, connected
from tests.live_gateway import eventually, listening


class Sealed:
    """A gateway over TLS, for HTTP and for gRPC, with a client of its own."""

    def __init__(
        self, authority: Authority, callers: Authority, url: str, settings: GatewaySettings, login: tuple[str, str]
    ) -> None:
        self.authority = authority
        self.callers = callers
        self.url = url
        self.settings = settings
        self._login = login

    def token(self, shown: Pair | None = None) -> str:
        form = {"grant_type": "client_credentials"}
        answer = httpx.post(
            f"{self.url}/oauth/token", data=form, auth=self._login, verify=self.authority.trusted(shown)
        )
        return str(answer.raise_for_status().json()["access_token"])

    def code(self, token: str | None, shown: Pair | None = None, trusted: Authority | None = None) -> str:
        """The code of a call with a token and perhaps a certificate."""
        key, chain = (None, None) if shown is None else (shown.key.read_bytes(), shown.certificate.read_bytes())
        credentials = grpc.ssl_channel_credentials((trusted or self.authority).file.read_bytes(), key, chain)
        with connected(f"127.0.0.1:{self.settings.grpc_port}", token, credentials) as caller:
            try:
                caller.call("ServerMetadata" if token else "ServerLive")
            except Refused as refused:
                return refused.code
        return "OK"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture
def sealed(
    tmp_path: Path, redis_server: RedisServer, authority: Authority, request: pytest.FixtureRequest
) -> Iterator[Sealed]:
    server = authority.issue("server")
    callers = Authority(tmp_path, "callers-authority") if request.param == "required" else authority
    settings = GatewaySettings(
        database_url=f"sqlite:///{tmp_path / 'sluice.db'}",
        store_dir=tmp_path / "store",
        keys_dir=tmp_path / "keys",
        client_secret_key="k" * 32,
        master_key="m" * 43,
        redis_url=redis_server.url,
        key_prefix="grpc-tls",
        tls_certificate=server.certificate,
        tls_key=server.key,
        tls_client_certificates=request.param,
        tls_client_ca=callers.file if request.param != "off" else None,
        grpc_port=free_port(),
    )
    make_tables(settings)
    app = create_app(settings)
    with transaction(app.state.parts.sessions) as session:
        made, secret = clients.create(session, "sealed", [Scope.MODELS_READ], settings.pepper)
    files = settings.tls_files
    assert files is not None
    with listening(app, tls=LiveContext(files)) as url:
        yield Sealed(authority, callers, url, settings, (made.id, secret))


@pytest.mark.parametrize("sealed", ["optional"], indirect=True)
def test_a_token_fetched_with_a_certificate_is_good_with_that_one_only(sealed: Sealed):
    own, other = (sealed.authority.issue(name) for name in ("own", "other"))
    token = sealed.token(own)
    assert sealed.code(token, own) == "OK"
    assert sealed.code(token, other) == "UNAUTHENTICATED"
    assert sealed.code(token) == "UNAUTHENTICATED"
    assert sealed.code(sealed.token(), other) == "OK"


@pytest.mark.parametrize("sealed", ["required"], indirect=True)
def test_without_a_certificate_that_is_asked_for_nobody_connects(sealed: Sealed):
    stranger = sealed.authority.issue("stranger")
    assert sealed.code(None) == "UNAVAILABLE"
    assert sealed.code(None, stranger) == "UNAVAILABLE"
    assert sealed.code(None, sealed.callers.issue("known")) == "OK"


@pytest.mark.parametrize("sealed", ["off"], indirect=True)
def test_a_new_certificate_is_shown_to_new_connections(sealed: Sealed, tmp_path: Path):
    newer = Authority(tmp_path, "newer")
    assert sealed.code(None) == "OK"
    assert sealed.code(None, trusted=newer) == "UNAVAILABLE"
    pair = newer.issue("server")
    shutil.copy(pair.key, sealed.settings.tls_key or "")
    shutil.copy(pair.certificate, sealed.settings.tls_certificate or "")
    eventually(lambda: sealed.code(None, trusted=newer) == "OK")
