"""Runs migrations, in one transaction and one process at a time, on the database that the settings name.

Alembic executes this file for each of its commands. `model_store.migrations` passes settings of its own in the
configuration's attributes; without them, those of the environment count.
"""

from __future__ import annotations

import sqlite3

from alembic import context
from sqlalchemy import Connection, event, text

import auth.audit_tables
import auth.key_tables
import auth.limit_tables
import auth.people_tables
import auth.tables
import auth.token_tables
import model_store.deleted_models
import model_store.evaluations
import model_store.imports
import model_store.job_policies
import model_store.labels
import model_store.model_settings
import model_store.partial_uploads
import model_store.samples
import model_store.tables
import model_store.traffic_tables
import model_store.upload_signatures
import model_store.variant_policies
import model_store.version_policies
import workers.files.tables
import workers.idempotency
import workers.tables
import workers.webhooks.tables
from model_store.database import Base, connect
from model_store.settings import StoreSettings

# Importing the tables is what fills the metadata; `alembic check` would call a table of a forgotten module superfluous.
TABLES = (
    model_store.tables,
    model_store.traffic_tables,
    model_store.job_policies,
    model_store.labels,
    model_store.version_policies,
    model_store.model_settings,
    model_store.samples,
    model_store.evaluations,
    model_store.partial_uploads,
    model_store.imports,
    model_store.upload_signatures,
    model_store.deleted_models,
    model_store.variant_policies,
    auth.tables,
    auth.audit_tables,
    auth.key_tables,
    auth.limit_tables,
    auth.token_tables,
    auth.people_tables,
    workers.tables,
    workers.webhooks.tables,
    workers.idempotency,
    workers.files.tables,
)

# Any constant will do, as long as nothing else in the same database takes it: "sluice" in ASCII.
ADVISORY_LOCK = 0x736C75696365


def run() -> None:
    settings = context.config.attributes.get("settings") or StoreSettings()
    if context.is_offline_mode():
        context.configure(
            url=settings.database_url.get_secret_value(), target_metadata=Base.metadata, transactional_ddl=True
        )
        with context.begin_transaction():
            context.run_migrations()
        return
    engine = connect(settings)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", leave_references_alone)
    with engine.connect() as connection:
        # Batch mode: SQLite changes a table by making a new one. Its DDL is as transactional as PostgreSQL's.
        context.configure(
            connection=connection, target_metadata=Base.metadata, render_as_batch=True, transactional_ddl=True
        )
        with context.begin_transaction():
            wait_for_other_runs(connection)
            context.run_migrations()
    engine.dispose()


def wait_for_other_runs(connection: Connection) -> None:
    """Waits until no other migration runs; on SQLite, BEGIN IMMEDIATE has seen to it."""
    if connection.dialect.name == "postgresql":
        # The usual time-outs protect requests; a migration waits for its turn, and takes as long as it takes.
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))


def leave_references_alone(connection: sqlite3.Connection, record: object) -> None:  # noqa: ARG001 - SQLAlchemy's signature
    # Where batch mode replaces a table, dropping the old one would delete the rows that refer to it.
    connection.execute("PRAGMA foreign_keys=OFF")


run()
