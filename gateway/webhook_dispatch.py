"""Hands webhooks that are due over to background workers: a thread of every gateway, one of them active.

It alone has the keys that open webhooks' secrets. Each turn looks at a page of targets, the next ones at the next turn,
and takes a few deliveries for each: a receiver that is down, however much waits for it, takes little from the others.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass

import redis
from sqlalchemy import select
from sqlalchemy.orm import Session

from auth.tables import Client
from gateway.job_results import moment
from gateway.job_view import JobView, job_document
from gateway.settings import GatewaySettings
from gateway.webhook_room import Room, Standing
from model_store.database import Sessions, clock_ms, transaction
from model_store.errors import DatabaseUnavailable, SealBroken
from model_store.sealing import SealingKeys
from monitoring import metrics
from workers.broker import BACKGROUND_QUEUE
from workers.intervals import Intervals
from workers.publisher import Publisher
from workers.roles import hold
from workers.tables import Job
from workers.webhooks import deliveries, endpoints
from workers.webhooks import secrets as webhook_secrets
from workers.webhooks.outbox import JOB
from workers.webhooks.tables import WebhookDelivery, WebhookEndpoint

log = logging.getLogger(__name__)

ROLE = "webhooks"
ROLE_SECONDS = 5
LEAD_SECONDS = 1.5
IDLE_SECONDS = 0.25
BUSY_SECONDS = 0.05
TAKE_BACK_SECONDS = 3.0
PURGE_SECONDS = 60.0
LOG_SECONDS = 60.0
PAGES_A_RUN = 10
# What cannot be sent any more, as for an endpoint that was deleted, leaves in pages as well.
GIVEN_UP_A_TURN = 100
# More messages than that and no worker takes any: further ones would only fill Redis.
MOST_MESSAGES = 1000


@dataclass(frozen=True, slots=True)
class HandedOver:
    """A message for a background worker."""

    number: int
    fence: int


class WebhookDispatch:
    """Signs and hands over while it holds the role, and forgets what is old."""

    def __init__(
        self,
        settings: GatewaySettings,
        sessions: Sessions,
        client: redis.Redis,
        publisher: Publisher,
        keys: SealingKeys,
    ) -> None:
        self._settings = settings
        self._sessions = sessions
        self._client = client
        self._queue = f"{settings.key_prefix}:celery:{BACKGROUND_QUEUE}"
        self._publisher = publisher
        self._keys = keys
        self._after = ""
        self._leads = False
        self._intervals = Intervals()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
        self._client.close()

    def turn(self) -> bool:
        """One round of whatever is due; returns whether something was handed over."""
        if not self._lead():
            return False
        if self._intervals.due("take back", TAKE_BACK_SECONDS):
            with transaction(self._sessions) as session:
                back = deliveries.take_back(session)
            if back:
                log.info("%d webhooks were handed over and never sent; they are due again", back)
        if self._intervals.due("purge", PURGE_SECONDS):
            self._purge()
        return self._hand_over()

    def _hand_over(self) -> bool:
        with transaction(self._sessions, write=False) as session:
            found = deliveries.targets(session, self._after)
            now = clock_ms(session)
            flying = deliveries.in_flight(session)
            due = {target: due_at for target, due_at in found if due_at <= now}
            standings = _standings(session, due.keys() | flying.keys())
        self._after = found[-1][0] if len(found) == deliveries.TARGETS_A_TURN else ""
        # What waits for a receiver that is down says nothing about us.
        told = [*due.items(), *((target, due_at) for target, (_, due_at) in flying.items())]
        failing = {target for target, standing in standings.items() if standing.failing}
        oldest = min((due_at for target, due_at in told if target not in failing), default=now)
        metrics.WEBHOOK_AGE.set((now - oldest) / 1000)
        if not due or self._client.llen(self._queue) >= MOST_MESSAGES:
            return False
        room, handed = Room({target: count for target, (count, _) in flying.items()}, standings), 0
        for target in room.in_turn(due):
            if room.full:
                break
            most = room.most_for(target)
            messages = self._signed(target, most) if most else []
            # After the commit: before it, the worker would find nothing to claim.
            for message in messages:
                self._publisher.deliver(message.number, message.fence)
            room.take(target, len(messages))
            handed += len(messages)
        return handed > 0

    def _signed(self, target: str, most: int) -> list[HandedOver]:
        try:
            with transaction(self._sessions) as session:
                return self._sign(session, target, most)
        except SealBroken as error:
            # Others' secrets may be sound: they are not held up by this one.
            if self._intervals.due("log broken", LOG_SECONDS):
                log.error("webhooks of %s wait, their secret cannot be opened: %s", target, error)  # noqa: TRY400 - the text says all
            return []

    def _sign(self, session: Session, target: str, most: int) -> list[HandedOver]:
        """Hand over to one target so many at most."""
        endpoint = session.get(WebhookEndpoint, target)
        refusal = _refusal(session, target, endpoint)
        now = clock_ms(session)
        if refusal is not None:
            for delivery in deliveries.due_for(session, target, GIVEN_UP_A_TURN):
                deliveries.give_up(delivery, refusal, now)
            return []
        rows = deliveries.due_for(session, target, most)
        if not rows:
            return []
        good = webhook_secrets.good_secrets(session, self._keys, target, rows[0].client_id, now)
        handed = []
        for delivery in rows:
            if delivery.body is None:
                delivery.body = body_of(session, delivery)
            timestamp = now // 1000
            signature = webhook_secrets.signature(good, delivery.id, timestamp, delivery.body.encode())
            url = delivery.url if endpoint is None else endpoint.url
            deliveries.hand_over(delivery, url, timestamp, signature, now)
            handed.append(HandedOver(delivery.number, delivery.fence))
        return handed

    def _purge(self) -> None:
        for _ in range(PAGES_A_RUN):
            with transaction(self._sessions) as session:
                purged = deliveries.purge(session, self._settings.webhook_keep_seconds)
            if purged < deliveries.PAGE_ROWS:
                return
        # There is more, and it may grow faster than this: on with it at the next turn.
        self._intervals.at_once("purge")

    def _lead(self) -> bool:
        if self._intervals.due("lead", LEAD_SECONDS):
            led, self._leads = self._leads, False
            with transaction(self._sessions) as session:
                self._leads = hold(session, ROLE, self._settings.gateway_name, ROLE_SECONDS)
            if led and not self._leads:
                # Another gateway shows it now: what this one last said would stand for ever.
                metrics.WEBHOOK_AGE.set(0)
        return self._leads

    def _run(self) -> None:
        while not self._stop.is_set():
            busy = False
            try:
                busy = self.turn()
            except (DatabaseUnavailable, redis.RedisError) as error:
                if self._intervals.due("log away", LOG_SECONDS):
                    log.warning("webhooks wait: %s", type(error).__name__)
            except Exception:  # the thread's edge: no webhook would ever be sent again
                log.exception("webhooks could not be handed over")
                self._stop.wait(1)
            self._stop.wait(BUSY_SECONDS if busy else IDLE_SECONDS)


def body_of(session: Session, delivery: WebhookDelivery) -> str:
    """What the receiver gets, without any contents of the job; of one that is not kept any more, only how it ended."""
    job = session.scalars(select(Job).where(Job.id == delivery.job_id)).one_or_none()
    if job is None:
        known = {"id": delivery.job_id, "state": delivery.type.removeprefix(JOB)}
        return event_document(delivery.type, delivery.created_at, json.dumps(known).encode())
    return event_document(delivery.type, job.finished_at or delivery.created_at, job_document(JobView(job, None, None)))


def event_document(kind: str, at_ms: int, data: bytes) -> str:
    """An event as the specification advises it: its type, its moment, and JSON about it."""
    return json.dumps({"type": kind, "timestamp": moment(at_ms)})[:-1] + f', "data": {data.decode()}}}'


def _standings(session: Session, targets: Collection[str]) -> dict[str, Standing]:
    found = deliveries.standings(session, targets) if targets else []
    return {target: Standing(client_id, failing) for target, client_id, failing in found}


def _refusal(session: Session, target: str, endpoint: WebhookEndpoint | None) -> str | None:
    """Why nothing is sent to a target any more, or None."""
    if endpoint is None and target.startswith(endpoints.PREFIX):
        return endpoints.DELETED
    if endpoint is not None and endpoint.disabled:
        return "webhook_disabled"
    client = session.get(Client, target if endpoint is None else endpoint.client_id)
    return "client_disabled" if client is None or client.disabled else None
