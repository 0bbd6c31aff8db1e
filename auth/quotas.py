"""What clients used of their daily quotas: rows in SQL, to which every gateway adds what it counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from auth.limit_tables import QuotaUsage
from model_store.database import clock_ms, now_ms

DAY_MILLISECONDS = 86_400_000
KEEP_DAYS = 31
# A row is stamped when it is written and seen when it is committed, which may be later by as much as a gateway's
# statements wait for each other (model_store/database.py).
LATE_MILLISECONDS = 15_000

Place = tuple[str, str]
"""A client, and the model whose quota it is, or '' for that on everything."""


@dataclass(frozen=True, slots=True)
class Used:
    """Instances and bytes of bodies."""

    instances: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reading:
    """What the rows say: `moment` in milliseconds since 1970 by the database's clock, which also says which `day`."""

    moment: int
    used: Mapping[Place, Used]

    @property
    def day(self) -> int:
        return self.moment // DAY_MILLISECONDS

    @property
    def seconds_left(self) -> float:
        """How long the day still lasts."""
        return ((self.day + 1) * DAY_MILLISECONDS - self.moment) / 1000


def charge(session: Session, more: Mapping[Place, Used]) -> None:
    """Adds to what was used today; an increment may be negative, where something was given back."""
    day = clock_ms(session) // DAY_MILLISECONDS
    dialect = session.get_bind().dialect.name
    insert = sqlite.insert if dialect == "sqlite" else postgresql.insert
    # In the order of their names: two gateways that charge the same clients must not wait for each other.
    for client_id, model in sorted(more):
        used = more[client_id, model]
        row = insert(QuotaUsage).values(
            day=day, client_id=client_id, model=model, instances=used.instances, bytes=used.bytes
        )
        session.execute(
            row.on_conflict_do_update(
                index_elements=["day", "client_id", "model"],
                set_={
                    "instances": QuotaUsage.instances + row.excluded.instances,
                    "bytes": QuotaUsage.bytes + row.excluded.bytes,
                    "updated_at": now_ms(),
                },
            )
        )


def read_today(session: Session, since: int = 0) -> Reading:
    """Today's rows that were written since a moment (of an earlier reading), or all of them."""
    moment = clock_ms(session)
    query = select(QuotaUsage).where(
        QuotaUsage.day == moment // DAY_MILLISECONDS, QuotaUsage.updated_at >= since - LATE_MILLISECONDS
    )
    return Reading(moment, _used(session.scalars(query).all()))


def used_today(session: Session, client_id: str) -> Mapping[Place, Used]:
    """What one client used today."""
    day = clock_ms(session) // DAY_MILLISECONDS
    query = select(QuotaUsage).where(QuotaUsage.day == day, QuotaUsage.client_id == client_id)
    return _used(session.scalars(query).all())


def forget(session: Session) -> None:
    """Deletes the rows of days longer ago than a month."""
    day = clock_ms(session) // DAY_MILLISECONDS
    session.execute(delete(QuotaUsage).where(QuotaUsage.day < day - KEEP_DAYS))


def _used(rows: Sequence[QuotaUsage]) -> Mapping[Place, Used]:
    return {(row.client_id, row.model): Used(row.instances, row.bytes) for row in rows}
