"""The log of webhooks' deliveries: what was sent where, how it went, and once more on request."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from sqlalchemy import select
from sqlalchemy.orm import Session

from gateway.delivery_listing import Wanted, deliveries_of
from gateway.dependencies import Pages, TokenFirst
from gateway.routes.webhooks import Own, Reading, Writing
from gateway.webhook_views import DeliveriesPage, Delivery
from model_store.errors import SluiceError
from workers.webhooks import deliveries
from workers.webhooks.deliveries import DeliveryState
from workers.webhooks.tables import WebhookDelivery

router = APIRouter(prefix="/v1/webhooks/deliveries", tags=["Webhooks"], route_class=TokenFirst)

MOST_LISTED = 100
ID = r"^[A-Za-z0-9_-]{1,64}$"

DeliveryId = Annotated[
    str, Path(description="The delivery's id: `msg_…`.", pattern=r"^msg_[A-Za-z0-9_-]{1,76}$", examples=["msg_Zk0o3r…"])
]
NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"description": "The client has no such delivery, or not any more."}}


class DeliveryNotFound(SluiceError):
    status = 404
    code = "delivery_not_found"


class DeliveryNotEnded(SluiceError):
    status = 409
    code = "delivery_not_ended"


@router.get("", summary="List this client's deliveries, newest first")
def list_deliveries(  # noqa: PLR0913 - a query's parameters are arguments
    caller: Own,
    session: Reading,
    pages: Pages,
    webhook: Annotated[str | None, Query(pattern=ID, description="Of this webhook only.")] = None,
    job: Annotated[str | None, Query(pattern=ID, description="Of this job only.")] = None,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 20,
    page_token: Annotated[str | None, Query(max_length=64, description="From the page before.")] = None,
) -> DeliveriesPage:
    """Each with its attempts; kept for `SLUICE_WEBHOOK_KEEP_SECONDS` after its end."""
    wanted = Wanted(caller.client_id, webhook, job, state)
    rows, after = deliveries_of(session, pages, wanted, limit, page_token)
    return DeliveriesPage(deliveries=[Delivery.of(row) for row in rows], next_page_token=after)


@router.get("/{delivery_id}", summary="Show a delivery with its attempts", responses=NOT_FOUND)
def show_delivery(caller: Own, session: Reading, delivery_id: DeliveryId) -> Delivery:
    """Without what the receiver answered: nothing of it is kept but the status."""
    return Delivery.of(_find(session, caller.client_id, delivery_id))


@router.post(
    "/{delivery_id}/replay",
    status_code=202,
    summary="Send an ended delivery again",
    responses=NOT_FOUND | {409: {"description": "It has not ended."}},
)
def replay_delivery(caller: Own, session: Writing, delivery_id: DeliveryId) -> Delivery:
    """At once, with the same `webhook-id` and body, signed anew; with retries as the first time."""
    delivery = _find(session, caller.client_id, delivery_id)
    if delivery.ended_at is None:
        raise DeliveryNotEnded("the delivery is on its way already")
    deliveries.replay(session, delivery)
    return Delivery.of(delivery)


def _find(session: Session, client_id: str, delivery_id: str) -> WebhookDelivery:
    own = select(WebhookDelivery).where(WebhookDelivery.id == delivery_id, WebhookDelivery.client_id == client_id)
    delivery = session.scalars(own.with_for_update()).one_or_none()
    if delivery is None:
        raise DeliveryNotFound("there is no such delivery, or not any more")
    return delivery
