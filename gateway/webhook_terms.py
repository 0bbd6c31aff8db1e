"""Whether a job's end is told by webhook: as its submit asks, or its client's endpoints."""

from __future__ import annotations

from auth.roles import PERSON
from gateway.snapshot import Snapshot
from workers.webhooks.settings import WebhookSettings
from workers.webhooks.urls import WebhookRefused, receiver_of


def is_told(settings: WebhookSettings, snapshot: Snapshot, client_id: str, webhook: str | None) -> bool:
    """Whether anybody is to be told; raises WebhookRefused where the submit names an address that may not be told."""
    if webhook is not None and client_id.startswith(PERSON):
        # Only clients have a secret that could sign it.
        raise WebhookRefused("webhooks are for clients, and this is a person's token")
    if webhook is not None:
        receiver_of(webhook, settings)
        return True
    return client_id in snapshot.told
