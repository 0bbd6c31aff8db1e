"""Which versions are served, what labels demand, and what they pointed to before."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "version_policies",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("latest", sa.Integer(), nullable=True),
        sa.Column("specific", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_version_policies_model"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model", name=op.f("pk_version_policies")),
    )
    op.create_table(
        "label_gates",
        sa.Column("model", sa.String(128), nullable=False),
        sa.Column("label", sa.String(128), nullable=False),
        sa.Column("gates", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["models.name"], name=op.f("fk_label_gates_model"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("model", "label", name=op.f("pk_label_gates")),
    )
    op.add_column("versions", sa.Column("withdrawn", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("labels", sa.Column("previous", sa.Integer(), nullable=True))
    op.create_index("versions_by_state", "versions", ["state", "model", "number"])
    # Whoever retired a version meant it for ever: no policy is to bring it back.
    op.execute("UPDATE versions SET withdrawn = true WHERE state = 'END'")


def downgrade() -> None:
    op.drop_index("versions_by_state", "versions")
    op.drop_column("labels", "previous")
    op.drop_column("versions", "withdrawn")
    op.drop_table("label_gates")
    op.drop_table("version_policies")
