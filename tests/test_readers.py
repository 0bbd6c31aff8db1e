"""Pages for people: open by a setting, else by a token with the scope or by a person's password."""

from __future__ import annotations

from pathlib import Path

from auth import people
from auth.passwords import Passwords
from auth.scopes import Scope
from model_store.database import transaction
from tests.quiet_gateway import QuietGateway, quiet_gateway

PASSWORD = "correct horse battery"


def add_person(gateway: QuietGateway, name: str = "ada") -> tuple[str, str]:
    with transaction(gateway.parts.sessions) as session:
        people.create(session, name, Passwords().hash(PASSWORD))
    return name, PASSWORD


def test_a_page_that_a_setting_makes_public_asks_for_nothing(tmp_path: Path):
    with quiet_gateway(tmp_path, metrics_public=True, docs_public=True) as gateway:
        assert gateway.http.get("/metrics").status_code == 200
        assert gateway.http.get("/openapi.json").status_code == 200
        assert gateway.http.get("/metrics", headers={"authorization": "Bearer nonsense"}).status_code == 200


def test_a_closed_page_asks_a_browser_for_a_password(tmp_path: Path):
    with quiet_gateway(tmp_path, docs_public=False) as gateway:
        for path in ("/metrics", "/docs", "/openapi.json"):
            answer = gateway.http.get(path)
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Basic realm="sluice", charset="UTF-8", Bearer realm="sluice"'
            assert answer.json()["code"] == "credentials_invalid"


def test_a_person_reads_closed_pages_with_a_password(tmp_path: Path):
    with quiet_gateway(tmp_path, docs_public=False) as gateway:
        person = add_person(gateway)
        for path in ("/metrics", "/docs", "/openapi.json"):
            assert gateway.http.get(path, auth=person).status_code == 200
        assert gateway.http.get("/metrics", auth=("ada", "a wrong password")).status_code == 401
        assert gateway.http.get("/metrics", auth=("bob", PASSWORD)).status_code == 401
        for broken in ("Basic !!!", "Basic YWRh", "Basic"):
            assert gateway.http.get("/metrics", headers={"authorization": broken}).status_code == 401


def test_a_password_opens_nothing_but_such_pages(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        person = add_person(gateway)
        assert gateway.http.get("/admin/clients", auth=person).status_code == 401
        assert gateway.http.get("/v1/models", auth=person).status_code == 401


def test_a_token_with_the_scope_reads_metrics_and_one_without_does_not(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        assert gateway.http.get("/metrics", headers=gateway.headers("monitor", [Scope.METRICS_READ])).status_code == 200
        refused = gateway.http.get("/metrics", headers=gateway.headers("caller", [Scope.PREDICT]))
        assert refused.status_code == 403
        assert refused.json()["code"] == "insufficient_scope"
        assert gateway.http.get("/metrics", headers={"authorization": "Bearer a.b.c"}).status_code == 401


def test_guessing_a_password_is_slowed_down(tmp_path: Path):
    with quiet_gateway(tmp_path) as gateway:
        person = add_person(gateway)
        for _ in range(10):
            assert gateway.http.get("/metrics", auth=("ada", "a wrong password")).status_code == 401
        answer = gateway.http.get("/metrics", auth=person)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) > 0
