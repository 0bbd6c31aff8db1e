"""Signed uploads: keys whose signatures are believed, and which key signed a version's file."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Milliseconds since 1970, spelt out: later changes of the code must not reach this.
NOW = {
    "sqlite": "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def upgrade() -> None:
    op.create_table(
        "upload_keys",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False, server_default=sa.text(NOW[_dialect()])),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_upload_keys")),
        sa.UniqueConstraint("name", name=op.f("uq_upload_keys_name")),
    )
    with op.batch_alter_table("versions") as versions:
        versions.add_column(sa.Column("signed_by", sa.String(64), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("versions") as versions:
        versions.drop_column("signed_by")
    op.drop_table("upload_keys")


def _dialect() -> str:
    return op.get_context().dialect.name
