"""Endpoints: the addresses at which a client wants to be told of its jobs' ends."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from auth import clients
from model_store.database import clock_ms
from model_store.errors import SluiceError
from model_store.generation import bump_generation
from workers.jobs import FINAL
from workers.webhooks import deliveries
from workers.webhooks import secrets as webhook_secrets
from workers.webhooks.outbox import JOB, WAITING
from workers.webhooks.tables import WebhookDelivery, WebhookEndpoint

ENDPOINTS_OF_A_CLIENT = 10
EVENTS = tuple(f"{JOB}{state}" for state in FINAL)
TEST = "webhook.test"
# Why a delivery was given up.
DELETED = "webhook_deleted"

PREFIX = "whe_"

_ID = re.compile(r"whe_[A-Za-z0-9_-]{1,28}")


class WebhookNotFound(SluiceError):
    status = 404
    code = "webhook_not_found"


class WebhooksFull(SluiceError):
    status = 409
    code = "too_many_webhooks"


def add(session: Session, client_id: str, url: str, events: Collection[str], description: str) -> WebhookEndpoint:
    """A new endpoint at a checked address; no events are all of them. Raises ClientNotFound, WebhooksFull."""
    clients.get(session, client_id)
    # Its row is locked until the commit: of two that come at once, the second counts the first.
    bump_generation(session)
    own = select(func.count()).where(WebhookEndpoint.client_id == client_id)
    if session.execute(own).scalar_one() >= ENDPOINTS_OF_A_CLIENT:
        raise WebhooksFull(f"a client has at most {ENDPOINTS_OF_A_CLIENT} webhooks: delete one first")
    endpoint = WebhookEndpoint(
        id=PREFIX + secrets.token_urlsafe(12),
        client_id=client_id,
        url=url,
        events=_joined(events),
        description=description,
        disabled=False,
    )
    session.add(endpoint)
    session.flush()
    session.refresh(endpoint)
    return endpoint


def find(session: Session, client_id: str, endpoint_id: str) -> WebhookEndpoint:
    """The client's endpoint; raises WebhookNotFound, alike for a stranger's."""
    endpoint = session.get(WebhookEndpoint, endpoint_id) if _ID.fullmatch(endpoint_id) else None
    if endpoint is None or endpoint.client_id != client_id:
        raise WebhookNotFound("there is no such webhook")
    return endpoint


def of_client(session: Session, client_id: str) -> Sequence[WebhookEndpoint]:
    """All of a client's, the oldest first."""
    own = select(WebhookEndpoint).where(WebhookEndpoint.client_id == client_id)
    return session.scalars(own.order_by(WebhookEndpoint.created_at, WebhookEndpoint.id)).all()


def change(
    session: Session,
    endpoint: WebhookEndpoint,
    *,
    url: str | None = None,
    events: Collection[str] | None = None,
    description: str | None = None,
    disabled: bool | None = None,
) -> None:
    """Changes what is given. Enabling one makes it new in our eyes: how long it failed before is forgotten."""
    if url is not None:
        endpoint.url = url
    if events is not None:
        endpoint.events = _joined(events)
    if description is not None:
        endpoint.description = description
    if disabled is not None:
        endpoint.disabled, endpoint.disabled_reason, endpoint.failing_since = disabled, None, None
    session.flush()
    bump_generation(session)


def remove(session: Session, endpoint: WebhookEndpoint) -> None:
    """Forgets an endpoint and its secrets; what still waits for it is given up.

    A page of it at once; the dispatch gives up the rest when it is due.
    """
    webhook_secrets.forget(session, endpoint.id)
    deliveries.give_up_waiting(session, endpoint.id, DELETED)
    session.delete(endpoint)
    session.flush()
    bump_generation(session)


def test(session: Session, endpoint: WebhookEndpoint, body: str) -> WebhookDelivery:
    """A delivery that says nothing but that it arrived."""
    now = clock_ms(session)
    delivery = WebhookDelivery(
        id=f"msg_{secrets.token_urlsafe(18)}",
        client_id=endpoint.client_id,
        target=endpoint.id,
        type=TEST,
        url=endpoint.url,
        body=body,
        state=WAITING,
        attempt=0,
        fence=0,
        attempts="[]",
        next_at=now,
        schedule_from=now,
        created_at=now,
    )
    session.add(delivery)
    session.flush()
    return delivery


def told_clients(session: Session) -> frozenset[str]:
    """The clients that have an endpoint which is told of anything: read into every gateway's memory."""
    return frozenset(session.scalars(select(WebhookEndpoint.client_id).where(WebhookEndpoint.disabled.is_(False))))


def _joined(events: Collection[str]) -> str:
    return "" if set(events) == set(EVENTS) else " ".join(sorted(events))
