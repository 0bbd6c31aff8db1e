"""Keys of idempotent submits, policies of models for their jobs, weights of clients, and bounds on running jobs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("request", sa.LargeBinary(), nullable=False),
        sa.Column("job_id", sa.String(32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("client_id", "key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index("idempotency_keys_by_age", "idempotency_keys", ["created_at"])
    op.create_table(
        "job_policies",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("deadline_seconds", sa.Float(), nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=True),
        sa.Column("queue_seconds", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_job_policies")),
        sa.ForeignKeyConstraint(["model"], ["models.name"], ondelete="CASCADE", name=op.f("fk_job_policies_model")),
    )
    op.add_column("grants", sa.Column("weight", sa.Float(), nullable=False, server_default="1"))
    op.add_column("client_limits", sa.Column("running_jobs", sa.Integer(), nullable=True))
    op.add_column("lane_counts", sa.Column("taken", sa.BigInteger(), nullable=False, server_default="0"))


def downgrade() -> None:
    for table, column in (("lane_counts", "taken"), ("client_limits", "running_jobs"), ("grants", "weight")):
        op.drop_column(table, column)
    op.drop_table("job_policies")
    op.drop_index("idempotency_keys_by_age", "idempotency_keys")
    op.drop_table("idempotency_keys")
