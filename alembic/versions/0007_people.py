"""People with roles, second factors and sessions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    now = clock()
    op.rename_table("people", "people_before")
    release_key("people_before")
    op.create_table(
        "people",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("tokens_not_before", sa.BigInteger(), server_default=now, nullable=False),
        sa.Column("second_factor", sa.LargeBinary(), nullable=True),
        sa.Column("second_factor_offered", sa.LargeBinary(), nullable=True),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), server_default=now, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_people")),
        sa.UniqueConstraint("name", name=op.f("uq_people_name")),
    )
    # Whoever was there could look at pages, and no more: that is what a reader can.
    op.execute(
        "INSERT INTO people (id, name, role, password_hash, disabled, last_step, created_at) "
        f"SELECT {new_id()}, name, 'reader', password_hash, disabled, 0, created_at FROM people_before"
    )
    op.drop_table("people_before")
    op.create_table(
        "recovery_codes",
        sa.Column("person_id", sa.String(length=64), nullable=False),
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        person("recovery_codes"),
        sa.PrimaryKeyConstraint("person_id", "code_hash", name=op.f("pk_recovery_codes")),
    )
    op.create_table(
        "person_sessions",
        sa.Column("cookie_hash", sa.String(length=64), nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("person_id", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("program", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        person("person_sessions"),
        sa.PrimaryKeyConstraint("cookie_hash", name=op.f("pk_person_sessions")),
        sa.UniqueConstraint("id", name=op.f("uq_person_sessions_id")),
    )
    op.create_index("person_sessions_by_person", "person_sessions", ["person_id"])
    op.create_index("person_sessions_by_end", "person_sessions", ["expires_at"])
    op.create_table(
        "one_time_tokens",
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("person_id", sa.String(length=64), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        person("one_time_tokens"),
        sa.PrimaryKeyConstraint("token_hash", name=op.f("pk_one_time_tokens")),
    )


def downgrade() -> None:
    for table in ("one_time_tokens", "person_sessions", "recovery_codes"):
        op.drop_table(table)
    op.rename_table("people", "people_after")
    release_key("people_after")
    op.create_table(
        "people",
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("password_hash", sa.String(length=255), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), server_default=clock(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_people")),
    )
    # Somebody without a password could not sign in; the release before would not know what to make of the row.
    op.execute(
        "INSERT INTO people (name, password_hash, disabled, created_at) "
        "SELECT name, password_hash, disabled, created_at FROM people_after WHERE password_hash <> ''"
    )
    op.drop_table("people_after")


def person(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["person_id"], ["people.id"], name=op.f(f"fk_{table}_person_id"), ondelete="CASCADE")


def release_key(table: str) -> None:
    """PostgreSQL keeps the names of constraints when their table is renamed; the new table needs them."""
    if op.get_context().dialect.name == "postgresql":
        for name in ("pk_people", "uq_people_name"):
            op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")


def new_id() -> str:
    """An expression for a new id: ids are made by the server, so nobody has one that somebody else had before."""
    if op.get_context().dialect.name == "sqlite":
        return "'usr_' || lower(hex(randomblob(16)))"
    return "'usr_' || replace(CAST(gen_random_uuid() AS TEXT), '-', '')"


def clock() -> sa.TextClause:
    """The database's clock in milliseconds since 1970, spelt out: later changes of the code must not reach this."""
    if op.get_context().dialect.name == "sqlite":
        return sa.text("(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))")
    return sa.text("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
