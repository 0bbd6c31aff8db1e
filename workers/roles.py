"""Roles that one process of many holds for a while, under a lease in SQL."""

from __future__ import annotations

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from model_store.database import now_ms
from workers.tables import Lease


def hold(session: Session, role: str, holder: str, seconds: int) -> bool:
    """Take or keep a role for a while; returns whether `holder` has it now."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    until = now_ms() + seconds * 1000
    statement = insert(Lease).values(name=role, holder=holder, until=until)
    taken = session.execute(
        statement.on_conflict_do_update(
            index_elements=["name"],
            set_={"holder": holder, "until": until},
            where=(Lease.holder == holder) | (Lease.until < now_ms()),
        ).returning(Lease.holder)
    ).first()
    return taken is not None
