"""Descriptions of models and versions, samples and what they showed, and uploads in pieces."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# Milliseconds since 1970, spelt out: later changes of the code must not reach this.
NOW = {
    "sqlite": "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def upgrade() -> None:
    op.create_table(
        "model_settings",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("pool", sa.String(64), nullable=True),
        sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("max_parallelism", sa.Integer(), nullable=True),
        sa.Column("max_instances", sa.Integer(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("tags", sa.Text(), nullable=True),
        sa.Column("class_names", sa.Text(), nullable=True),
        sa.Column("input_specification", sa.Text(), nullable=True),
        sa.Column("warm_up", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_model_settings_model"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_model_settings")),
    )
    op.create_table(
        "version_metadata",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("class_names", sa.Text(), nullable=True),
        sa.Column("input_specification", sa.Text(), nullable=True),
        _of_version("version_metadata"),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_version_metadata")),
    )
    op.create_table(
        "model_samples",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("instances", sa.Integer(), nullable=False),
        sa.Column("uploaded_by", sa.String(128), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False, server_default=_now()),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_model_samples_model"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model", "kind", name=op.f("pk_model_samples")),
    )
    op.create_table(
        "evaluations",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("samples_digest", sa.String(64), nullable=False),
        sa.Column("findings", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False, server_default=_now()),
        _of_version("evaluations"),
        sa.PrimaryKeyConstraint("model", "version", name=op.f("pk_evaluations")),
    )
    op.create_table(
        "model_uploads",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("asked", sa.Text(), nullable=False),
        sa.Column("signature", sa.String(255), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("received_bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.Column("parts", sa.Text(), nullable=False, server_default="[]"),
        sa.Column("turn", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_uploads")),
    )
    op.create_index("model_uploads_by_client", "model_uploads", ["client_id"])
    op.create_index("model_uploads_by_expiry", "model_uploads", ["expires_at"])


def downgrade() -> None:
    for table in ("model_uploads", "evaluations", "model_samples", "version_metadata", "model_settings"):
        op.drop_table(table)


def _now() -> sa.TextClause:
    return sa.text(NOW[op.get_context().dialect.name])


def _of_version(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["model", "version"],
        ["versions.model", "versions.number"],
        name=op.f(f"fk_{table}_model_version"),
        ondelete="CASCADE",
    )
