"""Administration of clients, through the whole application."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from auth.grants import GrantSpec, set_grants
from auth.scopes import Scope
from gateway.routes.clients import ClientShown, ClientWithSecret, Grants, NewClient
from model_store.database import transaction
from tests.quiet_gateway import QuietGateway, bearer, quiet_gateway


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway")) as found:
        yield found


@pytest.fixture(scope="module")
def admin(gateway: QuietGateway) -> Iterator[httpx.Client]:
    """An HTTP client with an administrator's token."""
    headers = gateway.headers("admin", [Scope.CLIENTS_ADMIN])
    with httpx.Client(base_url=gateway.http.base_url, headers=headers, timeout=30) as http:
        yield http


def create(admin: httpx.Client, name: str, **body: object) -> dict[str, Any]:
    answer = admin.post("/admin/clients", json={"name": name, **body})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def works(gateway: QuietGateway, token: str) -> bool:
    """Whether a token with `models:read` is accepted now."""
    return gateway.http.get("/v1/models", headers=bearer(token)).status_code == 200


def test_a_new_client_is_shown_its_secret_once(gateway: QuietGateway, admin: httpx.Client):
    answer = admin.post("/admin/clients", json={"name": "reading-room"})
    made = answer.json()

    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["location"] == f"/admin/clients/{made['id']}"
    assert set(made) == {"id", "name", "scopes", "disabled", "created_at", "client_secret"}
    assert (made["name"], made["disabled"]) == ("reading-room", False)
    assert made["scopes"] == ["predict", "jobs", "models:read"], "the default"
    assert abs(datetime.fromisoformat(made["created_at"]).timestamp() - datetime.now().astimezone().timestamp()) < 60
    assert works(gateway, gateway.token(made["id"], made["client_secret"]))

    shown = admin.get(answer.headers["location"])
    assert shown.json() == {name: value for name, value in made.items() if name != "client_secret"}
    assert "secret" not in shown.text


def test_the_examples_of_the_description_work(admin: httpx.Client):
    example = NewClient.model_config["json_schema_extra"]["examples"][0]
    made = create(admin, **{**example, "name": "from-the-example"})
    ClientWithSecret.model_validate(made)
    grants = Grants.model_config["json_schema_extra"]["examples"][0]
    answer = admin.put(f"/admin/clients/{made['id']}/grants", json=grants)
    assert answer.status_code == 200, answer.text
    for model in (ClientShown, ClientWithSecret):
        model.model_validate(model.model_config["json_schema_extra"]["examples"][0])


def test_a_client_can_be_created_with_scopes_and_grants(admin: httpx.Client):
    made = create(
        admin,
        "with-grants",
        scopes=["jobs", "predict"],
        grants=[{"model": "mnist", "label": "stable", "actions": ["predict"]}],
    )
    assert made["scopes"] == ["predict", "jobs"]
    grants = admin.get(f"/admin/clients/{made['id']}/grants").json()
    wanted = {"model": "mnist", "version": None, "label": "stable", "actions": ["predict"], "expires_at": None}
    assert grants == {"grants": [wanted | {"weight": 1.0}]}


def test_a_client_that_cannot_have_its_grants_is_not_created(admin: httpx.Client):
    body = {"name": "half-made", "grants": [{"model": "mnist", "version": 1, "label": "stable"}]}
    answer = admin.post("/admin/clients", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "grant_invalid")
    create(admin, "half-made")


def test_a_name_is_taken_once(admin: httpx.Client):
    create(admin, "taken")
    answer = admin.post("/admin/clients", json={"name": "taken"})
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "client_exists"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "a b"},
        {"name": "a\n"},
        {"name": "x" * 129},
        {"name": "a\u0000"},
        {"name": "ok", "scopes": []},
        {"name": "ok", "scopes": ["root"]},
        {"name": "ok", "role": "admin"},
        {"name": "ok", "client_id": "cli_mine"},
        {"name": "ok", "id": "cli_mine"},
        {"name": "ok", "client_secret": "mine"},
        {"name": "ok", "disabled": False},
        {"name": "ok", "grants": [{"model": "mnist", "actions": []}]},
        {"name": "ok", "grants": [{"model": "mnist", "actions": ["everything"]}]},
        {"name": "ok", "grants": [{"model": "mnist", "version": 0}]},
        {"name": "ok", "grants": [{"model": "mnist", "version": 2**31}]},
        {"name": "ok", "grants": [{"model": "mnist", "owner": "me"}]},
        {"name": "ok", "grants": [{"model": "a/*"}]},
        {"name": "ok", "grants": [{"model": "m", "label": "*"}]},
        {"name": "ok", "grants": [{"model": "mnist", "version": "1"}]},
        {"name": "ok", "grants": [{"model": "mnist", "version": True}]},
        {"name": "ok", "grants": [{"model": "m", "version": 1, "actions": ["upload"]}]},
        {"name": "ok", "grants": [{"model": "m", "label": "stable", "actions": ["metadata", "upload"]}]},
        {"name": "ok", "grants": [{"model": "m", "version": 1, "actions": ["label"]}]},
        {"name": "ok", "grants": [{"model": "m", "weight": 0}]},
        {"name": "ok", "grants": [{"model": "m", "weight": 100.5}]},
        {"name": "ok", "grants": [{"model": "m", "weight": "3"}]},
        {"name": "ok", "grants": [{"model": "m", "expires_at": 4102441200}]},
        {"name": "ok", "grants": [{"model": "m", "expires_at": "4102441200"}]},
        {"name": "ok", "grants": [{"model": "m", "expires_at": "2025-12-31T23:00:00Z"}]},
        {"name": "ok", "grants": [{"model": "m", "expires_at": "2099-12-31T23:00:00"}]},
        {"name": "ok", "grants": [{"model": "m", "expires_at": "0001-01-01T00:00:00Z"}]},
        {"name": "ok", "grants": [{"model": "m", "expires_at": "9999-12-31T23:59:59-14:00"}]},
        [],
        "text",
    ],
)
def test_a_body_against_the_rules_is_refused(admin: httpx.Client, body: object):
    answer = admin.post("/admin/clients", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 3000


def test_the_list_has_every_client_once_and_no_secret(admin: httpx.Client):
    made = {create(admin, f"listed-{number}")["name"] for number in range(5)}
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 2}
    while True:
        answer = admin.get("/admin/clients", params=query)
        assert "secret" not in answer.text
        assert "hash" not in answer.text
        page = answer.json()
        assert len(page["clients"]) <= 2
        seen += [client["name"] for client in page["clients"]]
        if page["next_page_token"] is None:
            break
        query["page_token"] = page["next_page_token"]
    assert len(seen) == len(set(seen))
    assert made < set(seen)
    assert seen == sorted(seen)


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "page_token=%00", "page_token=a%20b"])
def test_a_query_against_the_rules_is_refused(admin: httpx.Client, query: str):
    assert admin.get(f"/admin/clients?{query}").status_code == 422


def test_a_rotated_secret_replaces_the_old_one_at_once(gateway: QuietGateway, admin: httpx.Client):
    made = create(admin, "rotated")
    token = gateway.token(made["id"], made["client_secret"])
    assert works(gateway, token)

    answer = admin.post(f"/admin/clients/{made['id']}/rotate")

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    secret = answer.json()["client_secret"]
    assert secret != made["client_secret"]
    assert not works(gateway, token)
    refused = gateway.http.post(
        "/oauth/token", data={"grant_type": "client_credentials"}, auth=(made["id"], made["client_secret"])
    )
    assert refused.status_code == 401
    assert works(gateway, gateway.token(made["id"], secret))


def test_a_disabled_client_is_refused_at_once_and_returns_with_a_new_token(gateway: QuietGateway, admin: httpx.Client):
    made = create(admin, "switched")
    token = gateway.token(made["id"], made["client_secret"])

    assert admin.post(f"/admin/clients/{made['id']}/disable").json()["disabled"] is True
    assert not works(gateway, token)
    assert admin.post(f"/admin/clients/{made['id']}/disable").json()["disabled"] is True

    assert admin.post(f"/admin/clients/{made['id']}/enable").json()["disabled"] is False
    assert not works(gateway, token), "the old token stays refused"
    assert works(gateway, gateway.token(made["id"], made["client_secret"]))


def test_a_deleted_client_is_gone_and_its_name_free(gateway: QuietGateway, admin: httpx.Client):
    made = create(admin, "leaving", grants=[{"model": "mnist"}])
    token = gateway.token(made["id"], made["client_secret"])

    answer = admin.delete(f"/admin/clients/{made['id']}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert admin.get(f"/admin/clients/{made['id']}").status_code == 404
    assert not works(gateway, token)
    again = create(admin, "leaving")
    assert again["id"] != made["id"]
    assert admin.get(f"/admin/clients/{again['id']}/grants").json() == {"grants": []}


def test_grants_are_replaced_as_a_whole_and_shown_as_they_are(admin: httpx.Client):
    made = create(admin, "granted", grants=[{"model": "old"}])
    wanted = [
        {
            "model": "linear",
            "version": 2,
            "label": None,
            "actions": ["predict", "metadata"],
            "expires_at": None,
            "weight": 1.0,
        },
        {
            "model": "mn*",
            "version": None,
            "label": None,
            "actions": ["predict", "submit", "metadata", "upload", "label", "retire"],
            "expires_at": "2099-12-31T23:00:00.250000Z",
            "weight": 0.5,
        },
    ]
    answer = admin.put(f"/admin/clients/{made['id']}/grants", json={"grants": [wanted[1], wanted[0]]})
    assert answer.status_code == 200
    assert sorted(answer.json()["grants"], key=lambda grant: grant["model"]) == wanted
    assert admin.get(f"/admin/clients/{made['id']}/grants").json() == answer.json()

    assert admin.put(f"/admin/clients/{made['id']}/grants", json={"grants": []}).json() == {"grants": []}


def test_a_grant_that_has_ended_is_not_taken_unless_the_client_holds_it(gateway: QuietGateway, admin: httpx.Client):
    made = create(admin, "late")
    with transaction(gateway.parts.sessions) as session:
        set_grants(session, made["id"], [GrantSpec("old", expires_at=1_000_000_000_000)])
    path = f"/admin/clients/{made['id']}/grants"
    held = admin.get(path).json()["grants"]

    assert admin.put(path, json={"grants": [*held, {"model": "new"}]}).status_code == 200
    answer = admin.put(path, json={"grants": [{"model": "new", "expires_at": "2001-09-09T01:46:41Z"}]})
    assert (answer.status_code, answer.json()["code"]) == (422, "grant_invalid")
    assert "2001-09-09T01:46:41" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [{}, [], {"grants": [{}]}, {"grants": None}, {"grants": [{"model": "m"}] * 1001}, {"grants": [], "all": True}],
)
def test_grants_against_the_rules_are_refused(admin: httpx.Client, body: object):
    made = create(admin, f"ungranted-{abs(hash(str(body)))}")
    assert admin.put(f"/admin/clients/{made['id']}/grants", json=body).status_code == 422


ROUTES = [
    ("GET", ""), ("POST", "/rotate"), ("POST", "/disable"), ("POST", "/enable"), ("GET", "/grants"), ("PUT", "/grants"),
    ("DELETE", ""),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("client_id", ["cli_unknown", "unknown", "cli_%00", "cli_%E4", "..%2f", "x%2f", "a" * 300])
def test_an_unknown_client_is_not_found(admin: httpx.Client, method: str, path: str, client_id: str):
    body = {"grants": []} if method == "PUT" else None
    answer = admin.request(method, f"/admin/clients/{client_id}{path}", json=body)
    # A path with an encoded separator or control character is none at all.
    assert answer.status_code == (400 if "%00" in client_id or "%2f" in client_id else 404), answer.text


@pytest.mark.parametrize(("method", "path"), [("POST", ""), *((method, f"/cli_x{path}") for method, path in ROUTES)])
def test_without_the_scope_nothing_is_shown_or_changed(gateway: QuietGateway, method: str, path: str):
    name = f"other-{method}{path.replace('/', '.')}"
    scopes = [scope for scope in Scope if scope is not Scope.CLIENTS_ADMIN]
    headers = gateway.headers(name, scopes)
    for sent, status in ((headers, 403), ({}, 401), ({"authorization": "Bearer a.b.c"}, 401)):
        answer = gateway.http.request(method, f"/admin/clients{path}", headers=sent, json={"name": "intruder"})
        assert answer.status_code == status
        assert answer.headers["www-authenticate"].startswith("Bearer ")


@pytest.mark.parametrize(
    "extra",
    [
        {"x-http-method-override": "GET"},
        {"x-original-url": "/health/live"},
        {"x-forwarded-user": "admin"},
        {"x-rewrite-url": "/"},
    ],
)
def test_headers_that_some_proxies_honour_open_nothing(gateway: QuietGateway, extra: dict[str, str]):
    assert gateway.http.post("/admin/clients", headers=extra, json={"name": "intruder"}).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        "//admin/clients",
        "/admin//clients",
        "/admin/./clients",
        "/ADMIN/clients",
        "/admin/clients;x",
        "/admin%2fclients",
    ],
)
def test_another_spelling_of_the_path_opens_nothing(gateway: QuietGateway, path: str):
    assert gateway.http.get(path).status_code in {400, 401, 404}


def test_a_token_in_header_and_query_is_refused(gateway: QuietGateway, admin: httpx.Client):
    token = admin.headers["authorization"].removeprefix("Bearer ")
    assert admin.get(f"/admin/clients?access_token={token}").status_code == 400
    assert gateway.http.get(f"/admin/clients?access_token={token}").status_code == 401
    header = ("authorization", f"Bearer {token}")
    assert gateway.http.get("/admin/clients", headers=[header, header]).status_code == 400
