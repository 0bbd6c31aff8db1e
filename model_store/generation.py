"""The one number in SQL that changes with every change of rights or of what is served."""

from __future__ import annotations

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from model_store.database import now_ms
from model_store.errors import DatabaseNotMigrated
from model_store.tables import Generation

ROW = 1
# Asked twice a second by every gateway, and at each claim of a batch: made once.
_MOMENT = select(Generation.value, now_ms().label("now")).where(Generation.id == ROW)
NOT_MIGRATED = "the database lacks Sluice's tables or their first rows: run `sluice migrate`"


def bump_generation(session: Session) -> None:
    """Tells every gateway, once this transaction is committed, to read rights and catalog again."""
    counted = session.execute(
        update(Generation)
        .where(Generation.id == ROW)
        .values(value=Generation.value + 1)
        .returning(Generation.value)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    # Passed over in silence, gateways would go on with rights that were withdrawn.
    if counted is None:
        raise DatabaseNotMigrated(NOT_MIGRATED)


def read_generation(session: Session) -> int:
    """The number that changes with every change; read it before what it stands for, so that it is never too new."""
    return read_moment(session)[0]


def read_moment(session: Session) -> tuple[int, int]:
    """That number, and the database's clock in milliseconds since 1970, in one question."""
    found = session.execute(_MOMENT).one_or_none()
    if found is None:
        raise DatabaseNotMigrated(NOT_MIGRATED)
    return found.value, found.now
