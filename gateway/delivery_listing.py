"""Lists of webhooks' deliveries, the newest first; no page looks at more than a bounded number of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from gateway.job_listing import MOST_LOOKED_AT
from gateway.page_tokens import DELIVERIES, PageTokens
from workers.webhooks.tables import WebhookDelivery


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client's deliveries are looked for; None is any."""

    client_id: str
    target: str | None = None
    job: str | None = None
    state: str | None = None


def deliveries_of(
    session: Session, pages: PageTokens, wanted: Wanted, limit: int, page_token: str | None = None
) -> tuple[Sequence[WebhookDelivery], str | None]:
    """A page, and where the next one begins; it may have none of those that are wanted and yet not be the last.

    Raises PageTokenInvalid.
    """
    looked = _own(wanted, pages.below(page_token, DELIVERIES)).limit(MOST_LOOKED_AT).subquery()
    found = select(WebhookDelivery).where(WebhookDelivery.number.in_(select(looked.c.number)))
    for column, value in ((WebhookDelivery.target, wanted.target), (WebhookDelivery.state, wanted.state)):
        if value is not None:
            found = found.where(column == value)
    rows = session.scalars(found.order_by(WebhookDelivery.number.desc()).limit(limit + 1)).all()
    if len(rows) > limit:
        return rows[:limit], pages.make(rows[limit - 1].number, DELIVERIES)
    count, last = session.execute(select(func.count(), func.min(looked.c.number))).one()
    return rows, pages.make(last, DELIVERIES) if count == MOST_LOOKED_AT else None


def _own(wanted: Wanted, below: int) -> Select[int]:
    if wanted.job is not None:
        # Of one job there are a few, which an index of their own finds.
        own = WebhookDelivery.client_id == wanted.client_id
        found = select(WebhookDelivery.number).where(WebhookDelivery.job_id == wanted.job, own)
    else:
        # A range of one, so that the index of clients gives the order.
        of_client = WebhookDelivery.client_id.between(wanted.client_id, wanted.client_id)
        found = select(WebhookDelivery.number).where(of_client)
        found = found.order_by(WebhookDelivery.client_id.desc())
    return found.where(WebhookDelivery.number < below).order_by(WebhookDelivery.number.desc())
