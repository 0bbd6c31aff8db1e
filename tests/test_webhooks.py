"""Webhooks from end to end: a gateway, a serving and a background worker as processes, and a receiver behind TLS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler

import httpx
import pytest
from sqlalchemy import update
from standardwebhooks import Webhook

from model_store.database import transaction
from tests.conftest import RedisServer
from tests.processes import Cluster, cluster, kill, wait_for
from tests.serving import ended, submit
from tests.webhook_kit import TAKEN, Receiver, receiving
from workers.webhooks.tables import WebhookDelivery

SECONDS = 20


@dataclass
class Installation:
    """The processes, the receiver, and the settings that let the one reach the other."""

    cluster: Cluster
    receiver: Receiver
    allowed: dict[str, object]

    def start_background_worker(self) -> int:
        """The number of the new process."""
        return self.cluster.start("background-worker", worker_name="b", **self.allowed).pid


@pytest.fixture(scope="module")
def installation(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("webhooks")
    with receiving(folder) as receiver, cluster(folder, redis_server.url, f"sqlite:///{folder / 'sluice.db'}") as made:
        allowed: dict[str, object] = {
            "webhook_hosts": "localhost",
            "webhook_ports": receiver.port,
            "webhook_networks": "127.0.0.0/8 ::1/128",
            "webhook_ca": folder / "hooks" / "ca.pem",
        }
        made.start_worker()
        made.start_gateway(**allowed)
        made.wait_for_slots(2)
        yield Installation(made, receiver, allowed)


@pytest.fixture
def caller(installation: Installation) -> httpx.Client:
    installation.receiver.received.clear()
    installation.receiver.answers[:] = [TAKEN]
    return installation.cluster.caller("double")


def test_a_job_whose_end_is_told_to_an_address_of_its_own(installation: Installation, caller: httpx.Client):
    # Given a worker, and a job whose submit names an address
    worker = installation.start_background_worker()
    secret = caller.get("/v1/webhooks/secret").json()["key"]
    answer = caller.post(
        "/v1/models/double:submit",
        json={"instances": [[1.0, 2.0]]},
        headers={"Sluice-Webhook": installation.receiver.url},
    )
    job = answer.json()["id"]

    # When it ends, then that is told, and the receiver can tell who told it
    ended(caller, job)
    wait_for(lambda: installation.receiver.received, SECONDS)
    (got,) = installation.receiver.received
    told = Webhook(secret).verify(got.body, got.fields)
    assert (told["type"], told["data"]["id"], got.path) == ("job.succeeded", job, "/hook?a=1")

    def logged() -> bool:
        found = caller.get("/v1/webhooks/deliveries", params={"job": job}).json()["deliveries"]
        return [(one["id"], one["webhook"], one["state"]) for one in found] == [(got.id, None, "delivered")]

    wait_for(logged, SECONDS)
    kill([worker])


def test_a_worker_killed_in_the_middle_leaves_nothing_untold(installation: Installation, caller: httpx.Client):
    # Given an endpoint, and a receiver that has the message but has not answered
    worker = installation.start_background_worker()
    made = caller.post("/v1/webhooks", json={"url": installation.receiver.url}).json()
    killed = threading.Event()

    def hold(handler: BaseHTTPRequestHandler) -> None:
        killed.wait(SECONDS)
        TAKEN(handler)

    installation.receiver.answers[:] = [hold, TAKEN]
    # Every gateway learns of the endpoint by itself: the first job that is told is not always the first.
    wait_for(lambda: submit(caller, "double", 1.0, 2.0) and installation.receiver.received, SECONDS)

    # When the worker is killed, another one starts, and the lease ends
    kill([worker])
    killed.set()
    installation.start_background_worker()
    with transaction(installation.cluster.sessions) as session:
        session.execute(update(WebhookDelivery).where(WebhookDelivery.state == "sending").values(lease_until=0))

    # Then the same message comes once more, signed anew
    first = installation.receiver.received[0]
    wait_for(lambda: [got.id for got in installation.receiver.received].count(first.id) == 2, SECONDS)
    _, second = [got for got in installation.receiver.received if got.id == first.id]
    assert first.body == second.body
    assert Webhook(made["secret"]).verify(second.body, second.fields)

    def told() -> bool:
        found = caller.get(f"/v1/webhooks/deliveries/{first.id}").json()
        return bool(found["state"] == "delivered" and len(found["attempts"]) == 1)

    wait_for(told, SECONDS)
