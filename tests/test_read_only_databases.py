"""A database that takes no writes for a while, as a standby: it is away, and no statement of ours is called wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy
from pydantic import SecretStr
from sqlalchemy import update

from model_store.database import connect, sessions_of, transaction
from model_store.errors import DatabaseUnavailable
from model_store.settings import StoreSettings
from tests.databases import make_tables
from workers.tables import Job


def read_only(url: str) -> str:
    """The same database as somebody sees it who may not write to it."""
    parsed = sqlalchemy.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return f"sqlite:///file:{parsed.database}?mode=ro&uri=true"
    engine = sqlalchemy.create_engine(parsed, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        name = connection.execute(sqlalchemy.text("SELECT current_database()")).scalar_one()
        connection.execute(sqlalchemy.text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
    engine.dispose()
    return url


def test_a_read_only_database_is_read_and_is_away_for_whoever_writes(database_url: str, tmp_path: Path):
    make_tables(StoreSettings(database_url=SecretStr(database_url), store_dir=tmp_path))
    engine = connect(StoreSettings(database_url=SecretStr(read_only(database_url)), store_dir=tmp_path))
    sessions = sessions_of(engine)

    with transaction(sessions, write=False) as session:
        assert session.scalars(sqlalchemy.select(Job)).all() == []
    with pytest.raises(DatabaseUnavailable), transaction(sessions) as session:
        session.execute(update(Job).values(done=1))

    engine.dispose()
