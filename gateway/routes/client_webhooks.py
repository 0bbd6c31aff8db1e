"""Administration of clients' webhooks: where a client is told, and an end to it where that does harm."""

from __future__ import annotations

import logging

from fastapi import APIRouter

from auth import clients
from gateway.dependencies import TokenFirst
from gateway.routes.clients import NOT_FOUND, Admin, ClientId, Reading, Writing
from gateway.routes.webhooks import WebhookId
from gateway.webhook_views import Webhooks, WebhookShown, WebhookSwitch
from workers.webhooks import endpoints

log = logging.getLogger(__name__)

router = APIRouter(prefix="/admin/clients", tags=["Clients"], route_class=TokenFirst)


@router.get("/{client_id}/webhooks", summary="Show a client's webhooks", responses=NOT_FOUND)
def show_client_webhooks(admin: Admin, session: Reading, client_id: ClientId) -> Webhooks:  # noqa: ARG001 - asking for it is the check
    """Without their secrets, which only the client sees."""
    clients.get(session, client_id)
    return Webhooks(webhooks=[WebhookShown.of(one) for one in endpoints.of_client(session, client_id)])


@router.patch("/{client_id}/webhooks/{webhook_id}", summary="Disable or enable a client's webhook", responses=NOT_FOUND)
def switch_client_webhook(
    admin: Admin, session: Writing, client_id: ClientId, webhook_id: WebhookId, body: WebhookSwitch
) -> WebhookShown:
    """What waits for a disabled one is given up."""
    endpoint = endpoints.find(session, client_id, webhook_id)
    endpoints.change(session, endpoint, disabled=body.disabled)
    log.info("webhook %s of client %s switched by %s", webhook_id, client_id, admin.client_id)
    return WebhookShown.of(endpoint)
