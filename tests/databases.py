"""Databases with today's tables, copied from one that was migrated: migrating takes a second, copying milliseconds."""

from __future__ import annotations

import atexit
import functools
import shutil
import tempfile
from pathlib import Path

import sqlalchemy
from sqlalchemy import URL, make_url

from model_store.migrations import make_folder, migrate
from model_store.settings import StoreSettings


def make_tables(settings: StoreSettings) -> None:
    """All tables of the newest version in the database of these settings, unless it has them; makes a SQLite file.

    Tests of migrations call `migrate` instead, and whatever meets the database of an older version.
    """
    url = make_url(settings.database_url.get_secret_value())
    if url.get_backend_name() == "postgresql":
        if not _has_tables(url):
            _copy_database(url)
        return
    assert url.database, url
    make_folder(settings)
    if not Path(url.database).exists():
        shutil.copyfile(_migrated_file(), url.database)


def _has_tables(url: URL) -> bool:
    with _server(url).connect() as connection:
        return sqlalchemy.inspect(connection).has_table("alembic_version")


@functools.cache
def _migrated_file() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="sluice-tables-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    migrate(StoreSettings(database_url=f"sqlite:///{folder / 'sluice.db'}"))
    return folder / "sluice.db"


def _copy_database(url: URL) -> None:
    server = url.set(database="postgres")
    template = _migrated_database(server)
    with _server(server).connect() as connection:
        connection.execute(sqlalchemy.text(f"DROP DATABASE {url.database} WITH (FORCE)"))
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {url.database} TEMPLATE {template}"))


@functools.cache
def _migrated_database(server: URL) -> str:
    """The name of a database that nobody is connected to, which is what PostgreSQL asks of a template."""
    name = "migrated"
    with _server(server).connect() as connection:
        connection.execute(sqlalchemy.text(f"CREATE DATABASE {name}"))
    migrate(StoreSettings(database_url=server.set(database=name).render_as_string(hide_password=False)))
    return name


def _server(url: URL) -> sqlalchemy.Engine:
    """Connections that end where their block does, and no transactions: databases are not made in one."""
    return sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sqlalchemy.NullPool)
