"""An office of webhooks: what hands over and what sends, called by a test instead of by threads and processes."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, update

from gateway.settings import GatewaySettings
from gateway.webhook_dispatch import WebhookDispatch
from model_store.database import transaction
from tests.job_kit import BODY, claim, finish, numbers_of
from tests.queue_kit import Queue, make_queue, worker_settings
from tests.webhook_kit import Receiver, status
from workers import jobs, redis_link
from workers.broker import broker
from workers.lanes import Priority
from workers.publisher import Publisher
from workers.webhooks import endpoints as webhook_endpoints
from workers.webhooks import secrets as webhook_secrets
from workers.webhooks.delivering import deliver
from workers.webhooks.networks import parse_networks
from workers.webhooks.outbox import note_addresses
from workers.webhooks.sending import Sender, system_addresses
from workers.webhooks.tables import WebhookDelivery


@dataclass
class Office:
    """What hands over and what sends, called by the test instead of by threads and processes."""

    queue: Queue
    receiver: Receiver
    settings: GatewaySettings
    dispatch: WebhookDispatch
    sender: Sender

    def endpoint(self, *events: str, url: str | None = None) -> tuple[str, str]:
        """Id and secret of a new endpoint of the queue's client."""
        with transaction(self.queue.sessions) as session:
            made = webhook_endpoints.add(session, self.queue.client_id, url or self.receiver.url, events, "")
            keys = self.settings.master_keys
            return made.id, webhook_secrets.ensure(session, keys, made.id, self.queue.client_id)

    def job(self, address: str | None = None) -> int:
        """The number of a new job whose end is told."""
        draft = jobs.Draft(
            jobs.new_id(), self.queue.lane(Priority.BULK), "tensorflow_serving", 1, BODY, 60, notifies=True
        )
        with transaction(self.queue.sessions) as session:
            jobs.accept(session, [draft], 100)
            note_addresses(session, [] if address is None else [(draft.id, address)])
            return numbers_of(session, [draft])[0]

    def ended_job(self, address: str | None = None) -> int:
        number = self.job(address)
        (claimed,) = claim(self.queue, [number])
        assert finish(self.queue, claimed)
        return number

    def rows(self) -> list[WebhookDelivery]:
        with transaction(self.queue.sessions, write=False) as session:
            return list(session.scalars(select(WebhookDelivery).order_by(WebhookDelivery.number)))

    def row(self) -> WebhookDelivery:
        (found,) = self.rows()
        return found

    def in_flight(self) -> list[WebhookDelivery]:
        return [row for row in self.rows() if row.state == "sending"]

    def send(self) -> None:
        """What background workers do with all that was handed over."""
        for row in self.in_flight():
            deliver(self.queue.sessions, self.sender, self.settings, row.number, row.fence)

    def turn(self) -> None:
        """Hand over what is due, and send it."""
        self.dispatch.turn()
        self.send()

    def change(self, **values: object) -> None:
        with transaction(self.queue.sessions) as session:
            session.execute(update(WebhookDelivery).values(**values))

    def make_due(self) -> None:
        with transaction(self.queue.sessions) as session:
            session.execute(update(WebhookDelivery).where(WebhookDelivery.state == "waiting").values(next_at=0))


@contextlib.contextmanager
def an_office(redis_url: str, database_url: str, folder: Path, receiver: tuple[Receiver, Path]) -> Iterator[Office]:
    """An office whose client is told at this receiver; the path is that of its authority's certificate."""
    listening, authority = receiver
    listening.received.clear()
    listening.answers[:] = [status(204)]
    queue = make_queue(worker_settings(redis_url, database_url, folder), folder)
    settings = GatewaySettings(
        database_url=database_url,
        redis_url=redis_url,
        key_prefix=queue.settings.key_prefix,
        client_secret_key="k" * 32,
        master_key="m" * 43,
        webhook_hosts="localhost",
        webhook_ports=str(listening.port),
    )
    dispatch = dispatcher(settings, queue)
    sender = Sender(
        ssl.create_default_context(cafile=authority), parse_networks("127.0.0.0/8 ::1"), system_addresses, 1
    )
    yield Office(queue, listening, settings, dispatch, sender)
    dispatch.close()
    queue.close()


def dispatcher(settings: GatewaySettings, queue: Queue) -> WebhookDispatch:
    """One that is called by the test."""
    # Its publisher is not started: what is handed over says so in its row.
    publisher = Publisher(broker(settings))
    return WebhookDispatch(settings, queue.sessions, redis_link.connect(settings), publisher, settings.master_keys)


def waiting(target: str, client_id: str, count: int) -> list[dict[str, object]]:
    """Rows of deliveries that are due for a target for longer than any that are made now."""
    return [
        {
            "id": f"msg_{target}{n}", "client_id": client_id, "target": target, "type": "webhook.test", "url": "",
            "body": "{}", "state": "waiting", "attempt": 0, "fence": 0, "attempts": "[]", "next_at": n,
            "schedule_from": 0, "created_at": 0,
        }
        for n in range(count)
    ]  # fmt: skip
