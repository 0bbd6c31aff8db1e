"""Tokens bound to a client certificate (RFC 8705): good on connections with it, and nowhere else."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from auth.errors import Reason, TokenInvalid
from auth.scopes import Scope as Right
from gateway.app import create_app
from gateway.settings import GatewaySettings
from tests.databases import make_tables
from tests.forgery import decoded, forged, reason_of, verifier
from tests.gate import Gate, sent
from tests.live_gateway import listening
from tests.quiet_gateway import QuietGateway, bearer

MINE, THEIRS = (
    base64.urlsafe_b64encode(hashlib.sha256(name).digest()).rstrip(b"=").decode() for name in (b"mine", b"theirs")
)


class Terminating:
    """Stands where TLS ends: says in the ASGI scope which certificate a connection showed, as a header has it here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shown = dict(scope.get("headers", [])).get(b"certificate-of-connection")
        connection = {} if shown is None else {"client_cert_thumbprint": shown.decode()}
        await self._app({**scope, "extensions": {"tls": connection}}, receive, send)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    folder = tmp_path_factory.mktemp("gateway")
    settings = GatewaySettings(
        database_url=f"sqlite:///{folder / 'sluice.db'}",
        store_dir=folder / "store",
        keys_dir=folder / "keys",
        client_secret_key="k" * 32,
        master_key="m" * 43,
        redis_url="redis://127.0.0.1:1/0",
    )
    make_tables(settings)
    app = create_app(settings)
    parts = app.state.parts
    parts.snapshot.start()
    try:
        with listening(Terminating(app), lifespan="off") as url, httpx.Client(base_url=url, timeout=30) as http:
            yield QuietGateway(http, parts)
    finally:
        parts.snapshot.close()
        parts.engine.dispose()


def shows(thumbprint: str | None) -> dict[str, str]:
    return {} if thumbprint is None else {"certificate-of-connection": thumbprint}


def token_on(gateway: QuietGateway, client: tuple[str, str], thumbprint: str | None) -> str:
    form = {"grant_type": "client_credentials"}
    answer = gateway.http.post("/oauth/token", data=form, auth=client, headers=shows(thumbprint))
    return str(answer.raise_for_status().json()["access_token"])


def claims_of(token: str) -> dict[str, Any]:
    return dict(json.loads(decoded(token.split(".")[1])))


def test_a_token_is_bound_to_the_certificate_of_its_connection(gateway: QuietGateway):
    client = gateway.client("bound", [Right.MODELS_READ])
    token = token_on(gateway, client, MINE)
    assert claims_of(token)["cnf"] == {"x5t#S256": MINE}

    def status(path: str, thumbprint: str | None) -> int:
        return gateway.http.get(path, headers={**bearer(token), **shows(thumbprint)}).status_code

    for path in ("/v1/models", "/v1/models/none"):
        assert status(path, MINE) in (200, 404)
        assert status(path, THEIRS) == 401
        assert status(path, None) == 401, "remembered or not"
        assert status(path, MINE) in (200, 404)
    for thumbprint, expected in ((THEIRS, 401), (None, 401), (MINE, 403)):
        headers = {**bearer(token), **shows(thumbprint)}
        predict = gateway.http.post("/v1/models/none:predict", json={}, headers=headers)
        assert predict.status_code == expected, "with its certificate it is only the scope that is missing"
    said = gateway.http.post("/oauth/introspect", data={"token": token}, auth=client).json()
    assert said["cnf"] == {"x5t#S256": MINE}


def test_a_token_of_a_connection_without_a_certificate_is_bound_to_nothing(gateway: QuietGateway):
    token = token_on(gateway, gateway.client("unbound", [Right.MODELS_READ]), None)
    assert "cnf" not in claims_of(token)
    for thumbprint in (None, MINE):
        answer = gateway.http.get("/v1/models", headers={**bearer(token), **shows(thumbprint)})
        assert answer.status_code == 200


@pytest.mark.parametrize("extensions", [None, {}, {"tls": {}}, {"tls": None}, {"tls": {"client_cert_thumbprint": ""}}])
def test_a_bound_token_is_refused_where_no_certificate_is_known(extensions: dict[str, Any] | None):
    gate = Gate()
    token, _ = gate.issuer.issue("cli_1", {Right.PREDICT}, thumbprint=MINE)
    for _ in range(2):
        with pytest.raises(TokenInvalid) as refused:
            gate.admission.caller(sent(token), b"", extensions)
        assert refused.value.reason is Reason.CERTIFICATE
        shown = {"tls": {"client_cert_thumbprint": MINE}}
        assert gate.admission.caller(sent(token), b"", shown).client_id == "cli_1"


@pytest.mark.parametrize(
    "confirmation",
    [None, MINE, {}, {"jkt": MINE}, {"x5t#S256": MINE, "jkt": MINE}, {"x5t#S256": MINE[1:]}, {"x5t#S256": [MINE]}],
    ids=str,
)
def test_a_token_bound_in_a_way_that_cannot_be_checked_is_refused(confirmation: object):
    assert reason_of(forged(claims={"cnf": confirmation})) is Reason.CLAIMS


def test_a_token_says_what_it_is_bound_to():
    assert verifier().verify(forged(claims={"cnf": {"x5t#S256": MINE}})).thumbprint == MINE
