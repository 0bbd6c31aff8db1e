"""Webhooks of a client: where it is told of its jobs' ends, under which secrets."""

from __future__ import annotations

import logging
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from sqlalchemy.orm import Session

from auth import clients
from auth.scopes import Scope
from gateway.admission import Caller
from gateway.dependencies import Require, TokenFirst, open_session, parts, read_session
from gateway.job_results import moment
from gateway.webhook_dispatch import event_document
from gateway.webhook_views import (
    Delivery,
    NewWebhook,
    Overlap,
    SigningSecret,
    WebhookChange,
    Webhooks,
    WebhookShown,
    WebhookWithSecret,
)
from model_store.database import clock_ms
from workers.webhooks import endpoints
from workers.webhooks import secrets as webhook_secrets
from workers.webhooks.urls import receiver_of

log = logging.getLogger(__name__)

NO_STORE = {"cache-control": "no-store"}

router = APIRouter(prefix="/v1/webhooks", tags=["Webhooks"], route_class=TokenFirst)

Own = Annotated[Caller, Depends(Require(Scope.JOBS))]
Writing = Annotated[Session, Depends(open_session, scope="function")]
Reading = Annotated[Session, Depends(read_session, scope="function")]
WebhookId = Annotated[str, Path(description="The webhook's id: `whe_…`.", examples=["whe_4mZQhVYwW0qK7bN2"])]

Responses = dict[int | str, dict[str, Any]]
NOT_FOUND: Responses = {404: {"description": "The client has no such webhook."}}
REFUSED: Responses = {422: {"description": "Webhooks do not go to this address: the text says why."}}


@router.get("", summary="List this client's webhooks")
def list_webhooks(caller: Own, session: Reading) -> Webhooks:
    """Without their secrets."""
    return Webhooks(webhooks=[WebhookShown.of(one) for one in endpoints.of_client(session, caller.client_id)])


@router.post(
    "",
    status_code=201,
    summary="Be told of jobs' ends at an address",
    responses=REFUSED | {409: {"description": "The client has ten already."}},
)
def add_webhook(
    request: Request, response: Response, caller: Own, session: Writing, body: NewWebhook
) -> WebhookWithSecret:
    """Answers with the secret that signs what is sent there, this once. Jobs submitted a second later are told of."""
    found = parts(request)
    receiver_of(body.url, found.settings)
    endpoint = endpoints.add(session, caller.client_id, body.url, body.events, body.description)
    secret = webhook_secrets.ensure(session, found.settings.master_keys, endpoint.id, caller.client_id)
    log.info("webhook %s added by %s", endpoint.id, caller.client_id)
    response.headers.update(NO_STORE)
    return WebhookWithSecret(**WebhookShown.of(endpoint).model_dump(), secret=secret)


# Before those with an id in the path, which would take these words for one.
@router.get("/secret", summary="Show the secret of addresses that submits name")
def show_secret(request: Request, response: Response, caller: Own, session: Writing) -> SigningSecret:
    """It signs what goes to addresses in `Sluice-Webhook`; made when it is first asked for, or first signs."""
    clients.get(session, caller.client_id)
    response.headers.update(NO_STORE)
    keys = parts(request).settings.master_keys
    return SigningSecret(key=webhook_secrets.ensure(session, keys, caller.client_id, caller.client_id))


@router.post("/secret", summary="Replace the secret of addresses that submits name")
def rotate_client_secret(
    request: Request, response: Response, caller: Own, session: Writing, body: Overlap
) -> SigningSecret:
    """The secret so far signs beside the new one for `overlap_seconds`."""
    clients.get(session, caller.client_id)
    response.headers.update(NO_STORE)
    return _rotated(request, session, caller.client_id, caller.client_id, body)


@router.get("/{webhook_id}", summary="Show a webhook", responses=NOT_FOUND)
def show_webhook(caller: Own, session: Reading, webhook_id: WebhookId) -> WebhookShown:
    """Whether it is disabled, and since when it fails."""
    return WebhookShown.of(endpoints.find(session, caller.client_id, webhook_id))


@router.patch("/{webhook_id}", summary="Change a webhook", responses=NOT_FOUND | REFUSED)
def change_webhook(
    request: Request, caller: Own, session: Writing, webhook_id: WebhookId, body: WebhookChange
) -> WebhookShown:
    """Deliveries that wait go to the new address. Enable one that was disabled with `{"disabled": false}`."""
    endpoint = endpoints.find(session, caller.client_id, webhook_id)
    if body.url is not None:
        receiver_of(body.url, parts(request).settings)
    endpoints.change(
        session,
        endpoint,
        url=body.url,
        events=body.events,
        description=body.description,
        disabled=body.disabled,
    )
    return WebhookShown.of(endpoint)


@router.delete("/{webhook_id}", status_code=204, summary="Delete a webhook", responses=NOT_FOUND)
def delete_webhook(caller: Own, session: Writing, webhook_id: WebhookId) -> None:
    """Its secrets are gone at once; what still waits for it is given up."""
    endpoints.remove(session, endpoints.find(session, caller.client_id, webhook_id))
    log.info("webhook %s deleted by %s", webhook_id, caller.client_id)


@router.post("/{webhook_id}/rotate-secret", summary="Give a webhook a new secret", responses=NOT_FOUND)
def rotate_webhook_secret(
    request: Request, response: Response, caller: Own, session: Writing, webhook_id: WebhookId, body: Overlap
) -> SigningSecret:
    """Answers with it, this once. The secret so far signs beside it for `overlap_seconds`: two signatures a message."""
    endpoint = endpoints.find(session, caller.client_id, webhook_id)
    response.headers.update(NO_STORE)
    return _rotated(request, session, endpoint.id, caller.client_id, body)


@router.post("/{webhook_id}/test", status_code=202, summary="Send a webhook a test event", responses=NOT_FOUND)
def test_webhook(caller: Own, session: Writing, webhook_id: WebhookId) -> Delivery:
    """Of the type `webhook.test`. What became of it is in the log of deliveries."""
    endpoint = endpoints.find(session, caller.client_id, webhook_id)
    now = clock_ms(session)
    data = f'{{"webhook": "{endpoint.id}", "sent_at": "{moment(now)}"}}'
    return Delivery.of(endpoints.test(session, endpoint, event_document(endpoints.TEST, now, data.encode())))


def _rotated(request: Request, session: Session, owner: str, client_id: str, body: Overlap) -> SigningSecret:
    keys = parts(request).settings.master_keys
    made = webhook_secrets.rotate(session, keys, owner, client_id, overlap_seconds=body.overlap_seconds)
    log.info("secret of webhooks of %s rotated", owner)
    return SigningSecret(key=made)
