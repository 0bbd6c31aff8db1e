"""Where uploads came from, and imports from a registry on their way."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

# Milliseconds since 1970, spelt out: later changes of the code must not reach this.
NOW = {
    "sqlite": "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def upgrade() -> None:
    op.add_column("versions", sa.Column("source", sa.Text(), nullable=True))
    now = sa.text(NOW[op.get_bind().dialect.name])
    op.create_table(
        "model_imports",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("uri", sa.String(512), nullable=False),
        sa.Column("requested_by", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("fetched_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("total_bytes", sa.BigInteger(), nullable=True),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("error_code", sa.String(64), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("fence", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("due_at", sa.BigInteger(), nullable=False, server_default=now),
        sa.Column("created_at", sa.BigInteger(), nullable=False, server_default=now),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_imports")),
    )
    op.create_index("model_imports_by_model", "model_imports", ["model", "created_at"])
    op.create_index("model_imports_by_state", "model_imports", ["state", "due_at"])


def downgrade() -> None:
    op.drop_index("model_imports_by_state", table_name="model_imports")
    op.drop_index("model_imports_by_model", table_name="model_imports")
    op.drop_table("model_imports")
    op.drop_column("versions", "source")
