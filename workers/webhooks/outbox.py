"""Ends of jobs that are to be told by webhook: noted in the transaction that ends the job.

So an end is told if and only if it was committed. Jobs that tell nobody come past here never.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import BindParameter, Insert, Select, bindparam, delete, func, insert, literal, or_, select
from sqlalchemy.orm import Session

from model_store.database import now_ms
from workers.tables import Job
from workers.webhooks.tables import JobWebhook, WebhookDelivery, WebhookEndpoint

WAITING = "waiting"
JOB = "job."

_NUMBERS: BindParameter[Sequence[int]] = bindparam("numbers", expanding=True)
# What a delivery begins as; `created_at` and the rest are one moment each, by the database's clock.
_COLUMNS = (
    "id", "client_id", "target", "job_id", "type", "url",
    "state", "attempt", "fence", "attempts", "next_at", "schedule_from", "created_at",
)  # fmt: skip
_NEW = (literal(WAITING), literal(0), literal(0), literal("[]"), now_ms(), now_ms(), now_ms())


def note_ends(session: Session, numbers: Sequence[int]) -> None:
    """Note that these jobs ended; only numbers of jobs that notify somebody are given."""
    connection = session.connection()
    given = {"numbers": list(numbers)}
    connection.execute(_TO_ENDPOINTS, given)
    if connection.execute(_TO_ADDRESSES, given).rowcount:
        connection.execute(_FORGET_ADDRESSES, given)


def note_addresses(session: Session, addresses: Sequence[tuple[str, str]]) -> None:
    """Note the addresses that submits named, each with the id of its new job, in the jobs' own transaction."""
    if addresses:
        session.connection().execute(insert(JobWebhook), [{"job_id": job_id, "url": url} for job_id, url in addresses])


def _ends_for_endpoints() -> Select[*tuple[Any, ...]]:
    event = JOB + Job.state
    wanted = or_(WebhookEndpoint.events == "", (" " + WebhookEndpoint.events + " ").contains(" " + event + " "))
    # The parts of the id are random both and have no dot, which the signature uses to separate it from the rest.
    message = "msg_" + Job.id + "_" + func.substr(WebhookEndpoint.id, 5)
    return (
        select(message, Job.client_id, WebhookEndpoint.id, Job.id, event, WebhookEndpoint.url, *_NEW)
        .join(WebhookEndpoint, WebhookEndpoint.client_id == Job.client_id)
        .where(Job.number.in_(_NUMBERS), WebhookEndpoint.disabled.is_(False), wanted)
    )


def _ends_for_addresses() -> Select[*tuple[Any, ...]]:
    message = "msg_" + Job.id
    return (
        select(message, Job.client_id, Job.client_id, Job.id, JOB + Job.state, JobWebhook.url, *_NEW)
        .join(JobWebhook, JobWebhook.job_id == Job.id)
        .where(Job.number.in_(_NUMBERS))
    )


def _insert(ends: Select[*tuple[Any, ...]]) -> Insert:
    return insert(WebhookDelivery).from_select(_COLUMNS, ends)


_TO_ENDPOINTS = _insert(_ends_for_endpoints())
_TO_ADDRESSES = _insert(_ends_for_addresses())
_FORGET_ADDRESSES = delete(JobWebhook).where(JobWebhook.job_id.in_(select(Job.id).where(Job.number.in_(_NUMBERS))))
