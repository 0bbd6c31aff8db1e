"""Limits of clients, and what they used of their quotas."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "client_limits",
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("requests_per_second", sa.Float(), nullable=True),
        sa.Column("burst", sa.Integer(), nullable=True),
        sa.Column("instances_per_day", sa.BigInteger(), nullable=True),
        sa.Column("concurrent_requests", sa.Integer(), nullable=True),
        sa.Column("queued_jobs", sa.Integer(), nullable=True),
        sa.Column("body_bytes", sa.BigInteger(), nullable=True),
        sa.Column("bytes_per_day", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_client_limits_client_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("client_id", "model", name=op.f("pk_client_limits")),
    )
    op.create_table(
        "quota_usage",
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("instances", sa.BigInteger(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), server_default=clock(), nullable=False),
        sa.PrimaryKeyConstraint("day", "client_id", "model", name=op.f("pk_quota_usage")),
    )


def downgrade() -> None:
    op.drop_table("quota_usage")
    op.drop_table("client_limits")


def clock() -> sa.TextClause:
    """The database's clock in milliseconds since 1970, spelt out: later changes of the code must not reach this."""
    if op.get_context().dialect.name == "sqlite":
        return sa.text("(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))")
    return sa.text("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
