"""Files of clients, and the batches that read them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# Milliseconds since 1970, spelt out: later changes of the code must not reach this.
NOW = {
    "sqlite": "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("format", sa.String(32), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=True),
        sa.Column(
            "created_at", sa.BigInteger(), nullable=False, server_default=sa.text(NOW[op.get_context().dialect.name])
        ),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("parts", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
    )
    op.create_index("files_by_client", "files", ["client_id", "created_at"])
    op.create_index("files_by_expiry", "files", ["expires_at"])
    op.create_table(
        "batches",
        sa.Column("job", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False, autoincrement=False),
        sa.Column("input_file", sa.String(40), nullable=False),
        sa.Column("output_file", sa.String(40), nullable=False),
        sa.Column("owns_input", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("checkpoint", sa.Text(), nullable=True),
        sa.Column("read_rows", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("whole", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("written_rows", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("failed_rows", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("failed_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("rows_per_second", sa.Float(), nullable=True),
        sa.Column("endpoint", sa.String(512), nullable=True),
        sa.Column("notes", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_batches")),
    )
    op.create_index("batches_by_input", "batches", ["input_file"])
    op.create_index("batches_by_output", "batches", ["output_file"])


def downgrade() -> None:
    op.drop_table("batches")
    op.drop_table("files")
