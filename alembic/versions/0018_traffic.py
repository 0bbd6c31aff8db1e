"""Traffic split over versions, shadows and canaries."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

# Milliseconds since 1970, spelt out: later changes of the code must not reach this.
NOW = {
    "sqlite": "(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
}


def upgrade() -> None:
    op.create_table(
        "traffic",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("weights", sa.Text(), nullable=False),
        sa.Column("sticky", sa.String(80), nullable=True),
        *_of_model("traffic", "model"),
    )
    op.create_table(
        "shadows",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("share", sa.Float(), nullable=False),
        sa.Column("agree_by", sa.String(16), nullable=False),
        sa.Column("absolute", sa.Float(), nullable=False),
        sa.Column("relative", sa.Float(), nullable=False),
        *_of_model("shadows", "model"),
    )
    op.create_table(
        "canaries",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("stable", sa.Integer(), nullable=False),
        sa.Column("sticky", sa.String(80), nullable=True),
        sa.Column("steps", sa.Text(), nullable=False),
        sa.Column("step_seconds", sa.Float(), nullable=False),
        sa.Column("least_requests", sa.Integer(), nullable=False),
        sa.Column("error_rate", sa.Float(), nullable=True),
        sa.Column("p99_seconds", sa.Float(), nullable=True),
        sa.Column("p99_ratio", sa.Float(), nullable=True),
        sa.Column("disagreement", sa.Float(), nullable=True),
        sa.Column("set_by", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("step_at", sa.BigInteger(), nullable=False),
        *_of_model("canaries", "model"),
    )
    op.create_table(
        "canary_moves",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False, server_default=sa.text(NOW[op.get_context().dialect.name])),
        sa.Column("move", sa.String(16), nullable=False),
        sa.Column("percent", sa.Float(), nullable=False),
        sa.Column("reason", sa.String(256), nullable=False),
        sa.Column("by", sa.String(128), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        *_of_model("canary_moves", "id"),
    )
    op.create_index("canary_moves_by_model", "canary_moves", ["model", "id"])
    op.create_table(
        "traffic_figures",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("run", sa.BigInteger(), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("measure", sa.String(16), nullable=False),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("largest", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint(
            "model", "run", "stage", "version", "measure", "bucket", name=op.f("pk_traffic_figures")
        ),
    )


def downgrade() -> None:
    for table in ("traffic_figures", "canary_moves", "canaries", "shadows", "traffic"):
        op.drop_table(table)


def _of_model(table: str, key: str) -> tuple[sa.Constraint, ...]:
    return (
        sa.PrimaryKeyConstraint(key, name=op.f(f"pk_{table}")),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f(f"fk_{table}_model_models"), ondelete="CASCADE"),
    )
