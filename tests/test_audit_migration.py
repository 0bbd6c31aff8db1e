"""What the audit log's migration makes of an installation of the release before."""

from __future__ import annotations

import sqlalchemy
from alembic import command

from model_store import migrations
from model_store.database import connect
from model_store.settings import StoreSettings


def test_administrators_may_read_the_log_and_nobody_else(database_url: str):
    settings = StoreSettings(database_url=database_url)
    configuration = migrations.configuration(settings)
    command.upgrade(configuration, "0007")
    engine = connect(settings)
    before = {"cli_a": "predict clients:admin", "cli_b": "clients:admin", "cli_c": "predict jobs models:write"}
    insert = sqlalchemy.text(
        "INSERT INTO clients (id, name, secret_hash, scopes, disabled) VALUES (:id, :id, 'x', :scopes, false)"
    )
    with engine.begin() as connection:
        connection.execute(insert, [{"id": name, "scopes": scopes} for name, scopes in before.items()])

    command.upgrade(configuration, "0008")
    assert scopes_of(engine) == {
        **{name: scopes + " audit:read" for name, scopes in before.items()},
        "cli_c": before["cli_c"],
    }

    command.downgrade(configuration, "0007")
    assert scopes_of(engine) == before
    engine.dispose()


def scopes_of(engine: sqlalchemy.Engine) -> dict[str, str]:
    with engine.connect() as connection:
        return {row.id: row.scopes for row in connection.execute(sqlalchemy.text("SELECT id, scopes FROM clients"))}
