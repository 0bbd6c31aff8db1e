"""What a job carries beside its input: its kind, its attempts, whom it tells, what its result can be proved by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for column in columns():
        op.add_column("jobs", column)
    for name, indexed, condition in (
        ("jobs_dead", "number", sa.text("dead")),
        ("jobs_by_parent", "parent", sa.text("parent IS NOT NULL")),
    ):
        op.create_index(name, "jobs", [indexed], sqlite_where=condition, postgresql_where=condition)


def downgrade() -> None:
    for name in ("jobs_by_parent", "jobs_dead"):
        op.drop_index(name, "jobs")
    for column in reversed(columns()):
        op.drop_column("jobs", column.name)


def columns() -> list[sa.Column[object]]:
    return [
        sa.Column("kind", sa.String(16), nullable=False, server_default="prediction"),
        sa.Column("parent", sa.BigInteger(), nullable=True),
        sa.Column("max_attempts", sa.Integer(), nullable=False, server_default="3"),
        sa.Column("notifies", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("dead", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("replay_of", sa.String(32), nullable=True),
        sa.Column("done", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("input_digest", sa.LargeBinary(), nullable=True),
        sa.Column("output_digest", sa.LargeBinary(), nullable=True),
        sa.Column("result_bytes", sa.BigInteger(), nullable=True),
        sa.Column("ran_on", sa.Text(), nullable=True),
    ]
