"""The SQL database: engine, sessions, transactions and its clock; the same code for SQLite and PostgreSQL."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from sqlalchemy import BigInteger, Connection, Engine, MetaData, create_engine, event, select, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import FunctionElement

from model_store.errors import DatabaseUnavailable
from model_store.settings import StoreSettings

Sessions = sessionmaker[Session]

BUSY_SECONDS = 5
POOL_WAIT_SECONDS = 1
SQLITE_AWAY = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)
# PostgreSQL's read_only_sql_transaction: a standby, or a server that was told to take no writes for a while. psycopg
# files it under errors of its own inside, not of operation.
POSTGRESQL_AWAY = frozenset({"25006"})


class Base(DeclarativeBase):
    """Base of every table; times are whole milliseconds since 1970 by the database's own clock."""

    # A migration can only change a constraint that has a name, and SQLite gives none of its own.
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )


class now_ms(FunctionElement[int]):  # noqa: N801 - reads as the SQL function that it is
    """The database's clock in milliseconds since 1970; it moves on within a transaction."""

    type = BigInteger()
    inherit_cache = True


@compiles(now_ms, "sqlite")
def _now_sqlite(element: now_ms, compiler: SQLCompiler, **kw: object) -> str:  # noqa: ARG001 - SQLAlchemy's signature
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(now_ms, "postgresql")
def _now_postgresql(element: now_ms, compiler: SQLCompiler, **kw: object) -> str:  # noqa: ARG001 - as above
    return "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)"


def connect(settings: StoreSettings, *, pool_size: int = 5) -> Engine:
    """An engine for the configured database; waits at most a second for a connection of the pool."""
    url = make_url(settings.database_url.get_secret_value())
    if url.get_backend_name() == "sqlite":
        engine = create_engine(
            url,
            connect_args={"timeout": BUSY_SECONDS},
            pool_size=pool_size,
            pool_timeout=POOL_WAIT_SECONDS,
            # Errors quote their statement, and with it secrets' hashes and inputs of jobs, unless told not to.
            hide_parameters=True,
        )
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    # A statement that waits for a lock or for a slow disk must not hold a request: both time out in the server.
    options = "-c statement_timeout=10000 -c lock_timeout=3000"
    return create_engine(
        url,
        pool_size=pool_size,
        pool_timeout=POOL_WAIT_SECONDS,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"options": options, "connect_timeout": 3},
    )


def sessions_of(engine: Engine) -> Sessions:
    return sessionmaker(engine, expire_on_commit=False)


@contextlib.contextmanager
def transaction(sessions: Sessions, *, write: bool = True) -> Iterator[Session]:
    """One transaction, committed at the end; raises DatabaseUnavailable where the database cannot be reached."""
    try:
        with sessions() as session:
            if session.get_bind().dialect.name == "sqlite":
                # SQLite upgrades a reader to a writer only if nobody wrote in between: ask for the write lock first.
                session.connection(execution_options={"sluice_write": write})
            yield session
            session.commit()
    except (DBAPIError, PoolTimeout) as error:
        if is_unavailable(error):
            raise DatabaseUnavailable(
                "the database does not answer; try again shortly", retry_after_seconds=1
            ) from error
        raise


def is_unavailable(error: Exception) -> bool:
    """Whether the error says that the database is away, locked or full, rather than that the statement is wrong."""
    if isinstance(error, PoolTimeout):
        return True
    if not isinstance(error, DBAPIError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        # SQLite has one class for a locked file and for a misspelt column; the result code tells them apart.
        return getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in SQLITE_AWAY
    if getattr(error.orig, "sqlstate", None) in POSTGRESQL_AWAY:
        return True
    return error.connection_invalidated or isinstance(error, OperationalError)


def clock_ms(session: Session) -> int:
    """The database's clock in milliseconds since 1970."""
    return int(session.execute(select(now_ms())).scalar_one())


def _configure_sqlite(connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # The driver's own transaction handling begins too late (at the first write) and would hide BEGIN IMMEDIATE.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("sluice_write", True)
    connection.execute(text("BEGIN IMMEDIATE" if write else "BEGIN"))
