"""The routes of webhooks: what a client may register, see, change and replay, and what administrators may."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, update

from auth.scopes import Scope
from model_store.database import now_ms, transaction
from tests.live_gateway import refused
from tests.quiet_gateway import QuietGateway, quiet_gateway
from workers.webhooks.endpoints import ENDPOINTS_OF_A_CLIENT, EVENTS
from workers.webhooks.tables import WebhookDelivery, WebhookSecret

NUMBERS = itertools.count()
URL = "https://hooks.example.com/sluice"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietGateway]:
    with quiet_gateway(tmp_path_factory.mktemp("gateway"), webhook_hosts="*.example.com") as made:
        yield made


@pytest.fixture
def own(gateway: QuietGateway) -> Iterator[httpx.Client]:
    headers = gateway.headers(f"of-{next(NUMBERS)}", (Scope.JOBS,))
    with httpx.Client(base_url=str(gateway.http.base_url), headers=headers) as client:
        yield client


def add(client: httpx.Client, url: str = URL, **more: object) -> dict[str, object]:
    answer = client.post("/v1/webhooks", json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, object] = answer.json()
    return made


def test_a_secret_is_shown_once_and_kept_sealed(gateway: QuietGateway, own: httpx.Client):
    answer = own.post("/v1/webhooks", json={"url": URL, "description": "the archive"})

    made = answer.json()
    assert made["secret"].startswith("whsec_")
    assert answer.headers["cache-control"] == "no-store"
    assert own.get(f"/v1/webhooks/{made['id']}").json() == {k: v for k, v in made.items() if k != "secret"}
    with transaction(gateway.parts.sessions, write=False) as session:
        kept = session.scalars(select(WebhookSecret.sealed).where(WebhookSecret.owner == made["id"])).one()
    assert made["secret"].removeprefix("whsec_").encode() not in kept


@pytest.mark.parametrize(
    "url", ["https://hooks.example.org/", "http://hooks.example.com/", "https://127.0.0.1/", "https://10.1/", "x"]
)
def test_an_address_that_is_not_gone_to_is_refused_when_it_is_named(own: httpx.Client, url: str):
    assert refused(own.post("/v1/webhooks", json={"url": url}), 422, "webhook_refused")
    assert refused(own.patch(f"/v1/webhooks/{add(own)['id']}", json={"url": url}), 422, "webhook_refused")


def test_where_no_host_is_allowed_the_text_names_the_setting(tmp_path: Path):
    with quiet_gateway(tmp_path) as closed:
        answer = closed.http.post("/v1/webhooks", json={"url": URL}, headers=closed.headers("c", (Scope.JOBS,)))

    assert refused(answer, 422, "webhook_refused")
    assert "SLUICE_WEBHOOK_HOSTS" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"url": URL, "events": ["job.exploded"]},
        {"url": URL, "description": "a\x1b[31m"},
        {"url": URL, "description": "a" * 257},
        {"url": URL, "secret": "mine"},
    ],
)
def test_a_webhook_that_makes_no_sense_is_refused(own: httpx.Client, body: dict[str, object]):
    assert refused(own.post("/v1/webhooks", json=body), 422, "request_invalid")


def test_who_asks_for_an_unknown_event_is_told_the_known_ones(own: httpx.Client):
    answer = own.post("/v1/webhooks", json={"url": URL, "events": ["job.done"]})
    assert all(event in answer.json()["detail"] for event in EVENTS)


def test_moments_are_written_as_those_of_jobs(own: httpx.Client):
    made = add(own)
    sent = own.post(f"/v1/webhooks/{made['id']}/test").json()
    for moment in (made["created_at"], sent["created_at"], sent["next_attempt_at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(moment))


def test_what_waits_for_a_webhook_ends_with_it(gateway: QuietGateway, own: httpx.Client):
    one, other = (add(own)["id"] for _ in range(2))
    gone, kept = (own.post(f"/v1/webhooks/{webhook}/test").json()["id"] for webhook in (one, other))
    with transaction(gateway.parts.sessions) as session:
        session.execute(update(WebhookDelivery).values(next_at=now_ms() + 3_600_000))

    own.delete(f"/v1/webhooks/{one}")

    ended = own.get(f"/v1/webhooks/deliveries/{gone}").json()
    assert (ended["state"], ended["attempts"][-1]["error"]) == ("given_up", "webhook_deleted")
    assert own.get(f"/v1/webhooks/deliveries/{kept}").json()["state"] == "waiting"


def test_a_client_has_at_most_ten(own: httpx.Client):
    for _ in range(ENDPOINTS_OF_A_CLIENT):
        add(own)

    assert refused(own.post("/v1/webhooks", json={"url": URL}), 409, "too_many_webhooks")
    assert len(own.get("/v1/webhooks").json()["webhooks"]) == ENDPOINTS_OF_A_CLIENT


def test_a_webhook_is_changed_and_deleted(gateway: QuietGateway, own: httpx.Client):
    made = add(own, events=["job.failed"])
    path = f"/v1/webhooks/{made['id']}"
    changed = own.patch(path, json={"events": [], "description": "all", "disabled": True}).json()

    assert changed["events"] == sorted(EVENTS)
    assert (changed["description"], changed["disabled"], changed["disabled_reason"]) == ("all", True, None)
    assert own.delete(path).status_code == 204
    assert refused(own.get(path), 404, "webhook_not_found")
    with transaction(gateway.parts.sessions, write=False) as session:
        assert session.get(WebhookSecret, made["id"]) is None


def test_gateways_know_whose_jobs_are_told(gateway: QuietGateway, own: httpx.Client):
    known = len(gateway.parts.snapshot.told)
    made = add(own)
    gateway.parts.snapshot.refresh()
    assert len(gateway.parts.snapshot.told) == known + 1

    own.patch(f"/v1/webhooks/{made['id']}", json={"disabled": True})
    gateway.parts.snapshot.refresh()
    assert len(gateway.parts.snapshot.told) == known


def test_a_strangers_webhook_does_not_exist(gateway: QuietGateway, own: httpx.Client):
    path = f"/v1/webhooks/{add(own)['id']}"
    delivery = own.post(f"{path}/test").json()["id"]
    stranger = gateway.headers("stranger", (Scope.JOBS, Scope.CLIENTS_ADMIN))

    for method, of in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/rotate-secret")):
        answer = gateway.http.request(method, path + of, headers=stranger, json={} if method != "GET" else None)
        assert refused(answer, 404, "webhook_not_found")
    for method, of in (("GET", ""), ("POST", "/replay")):
        answer = gateway.http.request(method, f"/v1/webhooks/deliveries/{delivery}{of}", headers=stranger)
        assert refused(answer, 404, "delivery_not_found")
    assert gateway.http.get("/v1/webhooks/deliveries", headers=stranger).json()["deliveries"] == []


def test_a_new_secret_takes_the_place_of_the_old_one(own: httpx.Client):
    made = add(own)
    rotated = own.post(f"/v1/webhooks/{made['id']}/rotate-secret", json={"overlap_seconds": 0}).json()["key"]

    assert rotated != made["secret"]


def test_the_secret_of_named_addresses_is_made_once_and_replaced_on_request(own: httpx.Client):
    first, again = (own.get("/v1/webhooks/secret").json()["key"] for _ in range(2))
    replaced = own.post("/v1/webhooks/secret", json={}).json()["key"]

    assert first == again != replaced
    assert own.get("/v1/webhooks/secret").json()["key"] == replaced


def test_the_log_comes_in_pages_and_by_webhook_and_state(gateway: QuietGateway, own: httpx.Client):
    one, other = (add(own)["id"] for _ in range(2))
    ids = [own.post(f"/v1/webhooks/{webhook}/test").json()["id"] for webhook in (one, one, other)]
    with transaction(gateway.parts.sessions) as session:
        ended = update(WebhookDelivery).where(WebhookDelivery.id == ids[0])
        session.execute(ended.values(state="delivered", ended_at=now_ms(), next_at=None))

    def listed(**query: object) -> dict[str, object]:
        found: dict[str, object] = own.get("/v1/webhooks/deliveries", params=query).json()  # type: ignore[arg-type] # plain values
        return found

    first = listed(limit=2)
    second = listed(limit=2, page_token=first["next_page_token"])
    assert [row["id"] for row in [*first["deliveries"], *second["deliveries"]]] == ids[::-1]  # type: ignore[misc] # JSON
    assert second["next_page_token"] is None
    assert [row["id"] for row in listed(webhook=other)["deliveries"]] == [ids[2]]  # type: ignore[attr-defined] # JSON
    assert [row["id"] for row in listed(state="delivered")["deliveries"]] == [ids[0]]  # type: ignore[attr-defined] # JSON
    assert refused(own.get("/v1/webhooks/deliveries", params={"page_token": "x"}), 400, "page_token_invalid")


def test_the_log_of_one_job_comes_in_pages_too(gateway: QuietGateway, own: httpx.Client):
    ids = [own.post(f"/v1/webhooks/{add(own)['id']}/test").json()["id"] for _ in range(3)]
    with transaction(gateway.parts.sessions) as session:
        session.execute(update(WebhookDelivery).where(WebhookDelivery.id.in_(ids)).values(job_id="one-job"))

    listed, page = [], None
    for _ in ids:
        query = {"job": "one-job", "limit": 2} | ({} if page is None else {"page_token": page})
        found = own.get("/v1/webhooks/deliveries", params=query).json()
        listed += [row["id"] for row in found["deliveries"]]
        page = found["next_page_token"]
        if page is None:
            break

    assert (listed, page) == (ids[::-1], None)


def test_only_an_ended_delivery_is_replayed(gateway: QuietGateway, own: httpx.Client):
    delivery = own.post(f"/v1/webhooks/{add(own)['id']}/test").json()["id"]
    path = f"/v1/webhooks/deliveries/{delivery}"

    assert refused(own.post(f"{path}/replay"), 409, "delivery_not_ended")
    with transaction(gateway.parts.sessions) as session:
        row = update(WebhookDelivery).where(WebhookDelivery.id == delivery)
        session.execute(row.values(state="given_up", ended_at=now_ms(), next_at=None))
    assert own.post(f"{path}/replay").json()["state"] == "waiting"
    assert own.get(path).json()["next_attempt_at"] is not None


def test_an_administrator_sees_a_clients_webhooks_and_disables_one(gateway: QuietGateway, own: httpx.Client):
    made = add(own)
    with transaction(gateway.parts.sessions, write=False) as session:
        client = session.scalars(select(WebhookSecret.client_id).where(WebhookSecret.owner == made["id"])).one()
    admin = gateway.headers("administrator", (Scope.CLIENTS_ADMIN,))
    path = f"/admin/clients/{client}/webhooks"

    (shown,) = gateway.http.get(path, headers=admin).json()["webhooks"]
    assert "secret" not in shown
    answer = gateway.http.patch(f"{path}/{made['id']}", headers=admin, json={"disabled": True})
    assert answer.json()["disabled"] is True
    assert own.get(f"/v1/webhooks/{made['id']}").json()["disabled"] is True
    assert refused(gateway.http.get("/admin/clients/cli_x/webhooks", headers=admin), 404, "client_not_found")
