"""The audit log; administrators of clients may read it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
UNSEALED = sa.text("number IS NULL")
FIELDS = ("identity", "act", "model", "outcome")
NOTHING = "0" * 64
SCOPE = " audit:read"


def upgrade() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", NUMBER, sa.Identity(always=False), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=True),
        sa.Column("hash", sa.String(length=64), nullable=True),
        sa.Column("at", sa.BigInteger(), server_default=clock(), nullable=False),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=128), nullable=False),
        sa.Column("act", sa.String(length=64), nullable=False),
        sa.Column("model", sa.String(length=128), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=True),
        sa.Column("request_id", sa.String(length=64), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_entries")),
        sa.UniqueConstraint("number", name=op.f("uq_audit_entries_number")),
        sqlite_autoincrement=True,
    )
    op.create_index("audit_entries_unsealed", "audit_entries", ["id"], sqlite_where=UNSEALED, postgresql_where=UNSEALED)
    op.create_index("audit_entries_by_time", "audit_entries", ["at", "id"])
    for field in FIELDS:
        op.create_index(f"audit_entries_by_{field}", "audit_entries", [field, "at", "id"])
    op.create_table(
        "audit_chain",
        sa.Column("id", sa.Integer(), nullable=False),
        *ends_of_the_chain(),
        sa.Column("sent", sa.BigInteger(), nullable=False),
        sa.Column("sent_head", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_chain")),
    )
    op.execute(f"INSERT INTO audit_chain VALUES (1, 0, '{NOTHING}', 0, '{NOTHING}', 0, 0)")
    op.create_table(
        "audit_heads",
        *ends_of_the_chain(),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(length=130), nullable=False),
        sa.Column("signature", sa.String(length=160), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_heads")),
    )
    # Whoever may create clients with any scope is an administrator of everything, and was made to be one.
    op.execute(f"UPDATE clients SET scopes = scopes || '{SCOPE}' WHERE ' ' || scopes || ' ' LIKE '% clients:admin %'")


def downgrade() -> None:
    op.execute(f"UPDATE clients SET scopes = replace(scopes, '{SCOPE}', '')")
    for table in ("audit_heads", "audit_chain", "audit_entries"):
        op.drop_table(table)


def ends_of_the_chain() -> list[sa.Column[object]]:
    return [
        sa.Column("before_number", sa.BigInteger(), nullable=False),
        sa.Column("before_hash", sa.String(length=64), nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("hash", sa.String(length=64), nullable=False),
    ]


def clock() -> sa.TextClause:
    """The database's clock in milliseconds since 1970, spelt out: later changes of the code must not reach this."""
    if op.get_context().dialect.name == "sqlite":
        return sa.text("(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))")
    return sa.text("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
