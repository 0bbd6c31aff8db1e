"""The gateway does what its OpenAPI document says, where one of the two once said otherwise."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from auth.scopes import Scope
from tests.quiet_gateway import QuietGateway, quiet_gateway

SECRET = "/v1/webhooks/secret"
SCOPES = list(Scope)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("promises")) as made:
        made.http.headers.update(made.headers("caller", SCOPES))
        yield made


@pytest.mark.parametrize("path", ["%C2%84/uploads", "%C2%84/imports", "-/uploads", "digits/labels/%C2%84/gates"])
def test_what_cannot_be_a_name_is_refused_and_has_no_empty_list(gateway: QuietGateway, path: str):
    refused = gateway.http.get(f"/admin/models/{path}")
    assert (refused.status_code, refused.json()["code"]) == (422, "name_invalid")


@pytest.mark.parametrize("seconds", ["60", "60.0", "6e1", "0", "-0.0"])
def test_a_whole_number_is_one_however_it_is_written(gateway: QuietGateway, seconds: str):
    made = gateway.http.post(
        SECRET, content=f'{{"overlap_seconds": {seconds}}}', headers={"content-type": "application/json"}
    )
    assert made.status_code == 200, made.text


@pytest.mark.parametrize("seconds", ["false", '"60"', "60.5", "1e400", "9007199254740993.0", "null", "[60]"])
def test_nothing_else_is_a_whole_number(gateway: QuietGateway, seconds: str):
    refused = gateway.http.post(
        SECRET, content=f'{{"overlap_seconds": {seconds}}}', headers={"content-type": "application/json"}
    )
    assert (refused.status_code, refused.json()["code"]) == (422, "request_invalid")


def test_an_address_that_only_refuses_is_no_method(gateway: QuietGateway):
    refused = gateway.http.options("/v1/models")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("prefer", [{}, {"prefer": "respond-async"}])
@pytest.mark.parametrize("query", ["", "?validate_only=true"])
@pytest.mark.parametrize(
    "option",
    [
        {"sluice-webhook": f"https://{'a' * 2048}.example/"},
        {"sluice-max-attempts": "eleven"},
        {"sluice-priority": "first"},
        {"sluice-deadline": "soon"},
        {"idempotency-key": "k" * 256},
    ],
    ids=lambda option: next(iter(option)),
)
def test_an_option_that_cannot_be_read_is_refused_of_every_request(
    gateway: QuietGateway, option: dict[str, str], query: str, prefer: dict[str, str]
):
    answer = gateway.http.post(f"/v1/models/any:predict{query}", json={"instances": [1.0]}, headers=option | prefer)
    assert answer.status_code == 400
    assert next(iter(option)) in answer.json()["error"].lower()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("post", "/v1/files", "422"),
        ("get", "/admin/dead-letters/{job_id}", "409"),
        ("post", "/admin/dead-letters/{job_id}/purge", "409"),
    ],
)
def test_refusals_are_documented(gateway: QuietGateway, method: str, path: str, status: str):
    assert status in gateway.http.get("/openapi.json").json()["paths"][path][method]["responses"]


def test_a_stream_is_documented_by_its_events(gateway: QuietGateway):
    document = gateway.http.get("/openapi.json").json()
    for path in ("/v1/events", "/v1/jobs/{job_id}/events"):
        answer = document["paths"][path]["get"]["responses"]["200"]
        event = answer["content"]["text/event-stream"]["schema"]
        assert event["required"] == ["event", "data"]
        assert "job.succeeded" in event["properties"]["event"]["enum"]
