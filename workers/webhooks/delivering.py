"""The background worker's part of webhooks: claim what was handed over, send it, write how it went."""

from __future__ import annotations

import logging
import ssl
import time

from celery import Celery

from auth import audit
from model_store.database import Sessions, connect, sessions_of, transaction
from model_store.errors import DatabaseUnavailable
from monitoring import metrics
from workers.broker import DELIVER
from workers.settings import BackgroundSettings
from workers.webhooks import deliveries
from workers.webhooks.deliveries import Claimed
from workers.webhooks.networks import parse_networks
from workers.webhooks.sending import Failure, Outcome, Sender, system_addresses
from workers.webhooks.settings import WebhookSettings
from workers.webhooks.urls import WebhookRefused, receiver_of

log = logging.getLogger(__name__)


def register_deliver(app: Celery, settings: BackgroundSettings) -> None:
    """Make `app` one that sends webhooks."""
    # A connection for each thread, and no thread waits for another's.
    sessions = sessions_of(connect(settings, pool_size=settings.background_threads))
    sender = sender_of(settings, settings.background_threads)

    @app.task(name=DELIVER)
    def deliver_webhook(number: int, fence: int) -> None:
        try:
            deliver(sessions, sender, settings, number, fence)
        except DatabaseUnavailable:
            log.warning("a webhook waits for the database; it is handed over again when its lease has run out")


def sender_of(settings: WebhookSettings, threads: int) -> Sender:
    """A sender as the settings want it; raises OSError where the authorities' file cannot be read."""
    tls = ssl.create_default_context(cafile=settings.webhook_ca)
    tls.minimum_version = ssl.TLSVersion.TLSv1_2
    return Sender(tls, parse_networks(settings.webhook_networks), system_addresses, threads)


def deliver(sessions: Sessions, sender: Sender, settings: WebhookSettings, number: int, fence: int) -> None:
    """Send what was handed over under this fence, unless somebody did; raises DatabaseUnavailable.

    Any number of messages, made up ones among them, send it once.
    """
    if type(number) is not int or type(fence) is not int:
        log.warning("a message about a webhook was made up: it says no numbers")
        return
    with transaction(sessions) as session:
        claimed = deliveries.claim(session, number, fence)
    if claimed is None:
        return
    # Outside of any transaction: a slow receiver holds nothing of ours.
    began = time.monotonic()
    outcome = _send(sender, settings, claimed)
    milliseconds = int((time.monotonic() - began) * 1000)
    with transaction(sessions) as session:
        delivery = deliveries.conclude(session, claimed, outcome, milliseconds)
        if delivery is None:
            return
        state, target, client_id = delivery.state, delivery.target, delivery.client_id
        disabled = deliveries.judge(session, target, outcome)
        if disabled is not None:
            act = audit.Entry("webhook_disabled", reason=disabled, detail={"client": client_id, "webhook": target})
            audit.record(session, act)
    metrics.WEBHOOK_DELIVERIES.labels(outcome.failure or "delivered").inc()
    if outcome.failure is not None:
        log.info("webhook %s failed: %s %s; it is %s now", claimed.id, outcome.failure, outcome.status or "", state)


def _send(sender: Sender, settings: WebhookSettings, claimed: Claimed) -> Outcome:
    try:
        receiver = receiver_of(claimed.url, settings)
    except WebhookRefused:
        # The settings changed since it was registered.
        return Outcome(Failure.ADDRESS)
    fields = {
        "Content-Type": "application/json",
        "User-Agent": "Sluice-Webhooks",
        "webhook-id": claimed.id,
        "webhook-timestamp": str(claimed.timestamp),
        "webhook-signature": claimed.signature,
    }
    return sender.send(receiver, fields, claimed.body.encode())
