"""Which version numbers the names of deleted models have used up."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

# Milliseconds since 1970, spelt out: later changes of the code must not reach this.
NOW = {
    "sqlite": "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def upgrade() -> None:
    now = sa.text(NOW[op.get_bind().dialect.name])
    op.create_table(
        "deleted_models",
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("deleted_at", sa.BigInteger(), nullable=False, server_default=now),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_deleted_models")),
    )


def downgrade() -> None:
    op.drop_table("deleted_models")
