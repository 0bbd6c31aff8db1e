"""Variant policies, figures of every stored variant, and what a repeated preparation was asked for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "variant_policies",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_variant_policies")),
        sa.ForeignKeyConstraint(["model"], ["models.name"], ondelete="CASCADE", name=op.f("fk_variant_policies_model")),
    )
    op.add_column("variants", sa.Column("figures", sa.Text(), nullable=True))
    op.add_column("preparations", sa.Column("policy", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("preparations", "policy")
    op.drop_column("variants", "figures")
    op.drop_table("variant_policies")
