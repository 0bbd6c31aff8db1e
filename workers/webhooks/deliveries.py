"""A webhook's delivery: its states and every move, each one conditional write.

    waiting ──hand over──▶ sending ──conclude──▶ delivered
       ▲                      │
       ├──conclude (later)────┤
       ├──take back───────────┤  (lease ran out: the message or its worker was lost; no attempt)
       └──replay── delivered | given_up ◀──conclude (no more), hand over (nobody to send it to)

A hand-over makes the fence the next odd number and signs; the claim makes it even. Only what is odd can be claimed, so
each hand-over is sent once at most, whatever messages come, and one that comes twice costs a query. Only who made it
even writes how it went. All functions work in the caller's transaction and by the database's clock.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import delete, func, select, text, union_all, update
from sqlalchemy.orm import Session

from model_store.database import clock_ms, now_ms
from workers.webhooks.outbox import WAITING
from workers.webhooks.schedule import next_attempt
from workers.webhooks.sending import TOTAL_SECONDS, Outcome
from workers.webhooks.tables import WebhookDelivery, WebhookEndpoint, WebhookSecret

PAGE_ROWS = 500
TARGETS_A_TURN = 200
# Until a background worker has begun: signatures must be young when they arrive.
HAND_OVER_SECONDS = 30.0
SEND_SECONDS = TOTAL_SECONDS + 10.0
ATTEMPTS_KEPT = 20
DAY_MS = 24 * 3600 * 1000
# A receiver that took nothing for so long has moved away.
MOST_FAILING_DAYS = 5
GONE = 410
# What their columns hold.
MOST_NUMBER, MOST_FENCE = 2**63 - 1, 2**31 - 2


class DeliveryState(StrEnum):
    WAITING = WAITING  # in: the outbox, conclude, take_back, replay; out: hand_over, give_up
    SENDING = "sending"  # in: hand_over; out: conclude (the fence's holder), take_back
    DELIVERED = "delivered"  # in: conclude; out: replay
    GIVEN_UP = "given_up"  # in: conclude, give_up; out: replay


@dataclass(frozen=True, slots=True)
class Claimed:
    """A webhook that this worker sends now; `timestamp` in seconds since 1970."""

    number: int
    fence: int
    id: str
    url: str
    body: str
    timestamp: int
    signature: str


# Spelt out, as the conditions of the indexes: a plan that is made for any state could not use them.
_WAITING = text("webhook_deliveries.state = 'waiting'")
_SENDING = text("webhook_deliveries.state = 'sending'")

# A loose index scan, which neither database does by itself: one step to the next target, wherever it is, so that one
# target's thousands cost as much as another's one. `min` is the first entry of the target's range in the index.
_TARGETS = text("""
    WITH RECURSIVE found (target, place) AS (
        SELECT (SELECT min(target) FROM webhook_deliveries WHERE state = 'waiting' AND target > :after), 1
        UNION ALL
        SELECT (SELECT min(d.target) FROM webhook_deliveries d WHERE d.state = 'waiting' AND d.target > found.target),
               place + 1
        FROM found WHERE found.target IS NOT NULL AND place < :most
    )
    SELECT target, (
        SELECT min(next_at) FROM webhook_deliveries d WHERE d.state = 'waiting' AND d.target = found.target
    ) AS due_at
    FROM found WHERE target IS NOT NULL
""")


def targets(session: Session, after: str) -> list[tuple[str, int]]:
    """A page of targets for which something waits, behind `after` in order; each with when its first is due."""
    found = session.execute(_TARGETS, {"after": after, "most": TARGETS_A_TURN})
    return [(row.target, row.due_at) for row in found]


def in_flight(session: Session) -> dict[str, tuple[int, int]]:
    """How many are being sent to each target, and when the first of these was due."""
    columns = (WebhookDelivery.target, func.count(), func.min(WebhookDelivery.next_at))
    sending = select(*columns).where(_SENDING).group_by(WebhookDelivery.target)
    return {target: (count, due_at or 0) for target, count, due_at in session.execute(sending)}


def standings(session: Session, targets: Collection[str]) -> list[tuple[str, str, bool]]:
    """Of those of some targets that are known: the target, its client, and whether it took nothing of late."""
    endpoints = select(WebhookEndpoint.id, WebhookEndpoint.client_id, WebhookEndpoint.failing_since)
    named = select(WebhookSecret.owner, WebhookSecret.client_id, WebhookSecret.failing_since)
    named = named.where(WebhookSecret.owner == WebhookSecret.client_id)
    found = session.execute(
        union_all(endpoints.where(WebhookEndpoint.id.in_(targets)), named.where(WebhookSecret.owner.in_(targets)))
    )
    return [(target, client_id, since is not None) for target, client_id, since in found]


def due_for(session: Session, target: str, most: int) -> Sequence[WebhookDelivery]:
    """The next that are due for a target."""
    now = clock_ms(session)
    due = select(WebhookDelivery).where(_WAITING, WebhookDelivery.target == target, WebhookDelivery.next_at <= now)
    locked = due.order_by(WebhookDelivery.next_at).limit(most).with_for_update(skip_locked=True)
    return session.scalars(locked).all()


def hand_over(delivery: WebhookDelivery, url: str, timestamp: int, signature: str, now: int) -> None:
    """Let a background worker send it now; the row is one that `due_for` gave to this transaction."""
    # It stays due: where it is lost on the way, its turn is the one that it had.
    delivery.state = DeliveryState.SENDING.value
    # Odd: one that was claimed since, or was handed over and never claimed, is behind it.
    delivery.fence += 1 + delivery.fence % 2
    delivery.lease_until = now + int(HAND_OVER_SECONDS * 1000)
    delivery.url, delivery.signed_at, delivery.signature = url, timestamp, signature


def give_up_waiting(session: Session, target: str, reason: str) -> None:
    """End a page of those that wait for a target, the next ones first, whether they are due or not."""
    waiting = select(WebhookDelivery).where(_WAITING, WebhookDelivery.target == target)
    locked = waiting.order_by(WebhookDelivery.next_at).limit(PAGE_ROWS).with_for_update(skip_locked=True)
    now = clock_ms(session)
    for delivery in session.scalars(locked):
        give_up(delivery, reason, now)


def give_up(delivery: WebhookDelivery, reason: str, now: int) -> None:
    """End a delivery that cannot be sent at all; the row is as above."""
    delivery.state, delivery.next_at, delivery.ended_at = DeliveryState.GIVEN_UP.value, None, now
    _remember(delivery, now, {"error": reason})


def claim(session: Session, number: int, fence: int) -> Claimed | None:
    """What was handed over under this fence, once; None where it was taken, concluded, or lay too long.

    Whoever can write to Redis can send any numbers: those of no hand-over are none, also that of a claim.
    """
    if not 0 < number <= MOST_NUMBER or not 0 < fence <= MOST_FENCE or fence % 2 == 0:
        return None
    row = session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.number == number,
            WebhookDelivery.fence == fence,
            WebhookDelivery.state == DeliveryState.SENDING,
            WebhookDelivery.lease_until >= now_ms(),
        )
        # Even now: neither a second message with this fence nor one with the next finds anything.
        .values(fence=fence + 1, lease_until=now_ms() + int(SEND_SECONDS * 1000))
        .returning(
            WebhookDelivery.id,
            WebhookDelivery.url,
            WebhookDelivery.body,
            WebhookDelivery.signed_at,
            WebhookDelivery.signature,
        )
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if row is None or row.body is None or row.signed_at is None or row.signature is None:
        return None
    return Claimed(number, fence + 1, row.id, row.url, row.body, row.signed_at, row.signature)


def conclude(session: Session, claimed: Claimed, outcome: Outcome, milliseconds: int) -> WebhookDelivery | None:
    """Write how an attempt went; returns the row, or None where the fence was lost meanwhile."""
    held = select(WebhookDelivery).where(
        WebhookDelivery.number == claimed.number,
        WebhookDelivery.fence == claimed.fence,
        WebhookDelivery.state == DeliveryState.SENDING,
    )
    delivery = session.scalars(held.with_for_update()).one_or_none()
    if delivery is None:
        return None
    now = clock_ms(session)
    delivery.attempt += 1
    delivery.lease_until = None
    told = {"milliseconds": milliseconds, "status": outcome.status, "error": outcome.failure}
    _remember(delivery, now, told)
    delivery.next_at = None
    if outcome.failure is None:
        delivery.state, delivery.ended_at = DeliveryState.DELIVERED.value, now
    else:
        if outcome.status != GONE:
            delivery.next_at = next_attempt(delivery.schedule_from, now, delivery.attempt, outcome.retry_after_seconds)
        later = delivery.next_at is not None
        delivery.state = (DeliveryState.WAITING if later else DeliveryState.GIVEN_UP).value
        delivery.ended_at = None if later else now
    session.flush()
    return delivery


def judge(session: Session, target: str, outcome: Outcome) -> str | None:
    """Remember of a target whether it takes anything; returns why its endpoint was disabled, where it was just now."""
    # Locked: its client may delete it meanwhile.
    endpoint = session.get(WebhookEndpoint, target, with_for_update=True)
    now = clock_ms(session)
    if endpoint is None:
        named = session.get(WebhookSecret, target, with_for_update=True)
        if named is not None:
            named.failing_since = _failing_since(named.failing_since, outcome, now)
        return None
    if endpoint.disabled:
        return None
    endpoint.failing_since = _failing_since(endpoint.failing_since, outcome, now)
    if endpoint.failing_since is None:
        return None
    reason = None
    if outcome.status == GONE:
        reason = "gone"
    elif endpoint.failing_since < now - MOST_FAILING_DAYS * DAY_MS:
        reason = "failing"
    if reason is not None:
        endpoint.disabled, endpoint.disabled_reason = True, reason
    return reason


def take_back(session: Session) -> int:
    """A page of those whose lease ran out waits again; returns how many."""
    late = select(WebhookDelivery.number).where(_SENDING, WebhookDelivery.lease_until < clock_ms(session))
    numbers = session.scalars(late.limit(PAGE_ROWS).with_for_update(skip_locked=True)).all()
    if numbers:
        session.execute(
            update(WebhookDelivery)
            .where(WebhookDelivery.number.in_(numbers))
            .values(state=DeliveryState.WAITING.value, lease_until=None)
            .execution_options(synchronize_session=False)
        )
    return len(numbers)


def replay(session: Session, delivery: WebhookDelivery) -> None:
    """Send an ended one again, with the same id and a schedule of its own."""
    now = clock_ms(session)
    delivery.state, delivery.attempt, delivery.ended_at = DeliveryState.WAITING.value, 0, None
    delivery.next_at = delivery.schedule_from = now
    session.flush()


def purge(session: Session, keep_seconds: float) -> int:
    """Delete a page of those that ended longer ago than `keep_seconds`; returns how many."""
    old = select(WebhookDelivery.number).where(WebhookDelivery.ended_at < clock_ms(session) - int(keep_seconds * 1000))
    numbers = session.scalars(old.limit(PAGE_ROWS)).all()
    _delete(session, numbers)
    return len(numbers)


def forget_jobs(session: Session, job_ids: Collection[str]) -> None:
    """Deletes all deliveries about jobs that are to leave nothing behind."""
    found = select(WebhookDelivery.number).where(WebhookDelivery.job_id.in_(job_ids))
    _delete(session, session.scalars(found).all())


def _failing_since(since: int | None, outcome: Outcome, now: int) -> int | None:
    if outcome.failure is None:
        return None
    return now if since is None else since


def _delete(session: Session, numbers: Collection[int]) -> None:
    if numbers:
        session.execute(
            delete(WebhookDelivery)
            .where(WebhookDelivery.number.in_(numbers))
            .execution_options(synchronize_session=False)
        )


def _remember(delivery: WebhookDelivery, now: int, told: Mapping[str, object]) -> None:
    attempts = [*json.loads(delivery.attempts), {"at": now, **told}]
    delivery.attempts = json.dumps(attempts[-ATTEMPTS_KEPT:])
