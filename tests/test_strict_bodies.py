"""A JSON body of administration says each thing once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from auth.scopes import Scope
from tests.quiet_gateway import QuietGateway, quiet_gateway

JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("strict")) as made:
        yield made


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "first", "name": "second"}',
        '{"name": "first", "grants": [{"model": "a", "model": "*"}]}',
        '{"name": "first", "\\u006eame": "second"}',
    ],
)
def test_a_member_that_appears_twice_is_refused(gateway: QuietGateway, body: str):
    headers = {**gateway.headers(f"admin-{abs(hash(body))}", [Scope.CLIENTS_ADMIN]), **JSON}
    refused = gateway.http.post("/admin/clients", headers=headers, content=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "request_invalid")
    names = {client["name"] for client in gateway.http.get("/admin/clients", headers=headers).json()["clients"]}
    assert not names & {"first", "second"}


@pytest.mark.parametrize("path", ["/admin/session", "/admin/setup"])
def test_it_is_so_where_people_sign_in_too(gateway: QuietGateway, path: str):
    body = '{"token": "t", "name": "ada", "name": "root", "password": "twelve letters"}'
    refused = gateway.http.post(path, headers=JSON, content=body)
    assert (refused.status_code, refused.json()["code"]) == (422, "request_invalid")


def test_a_body_that_says_each_thing_once_is_taken(gateway: QuietGateway):
    headers = {**gateway.headers("admin", [Scope.CLIENTS_ADMIN]), **JSON}
    assert gateway.http.post("/admin/clients", headers=headers, content='{"name": "once"}').status_code == 201
