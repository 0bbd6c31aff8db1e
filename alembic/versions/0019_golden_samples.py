"""Golden samples, the environment that a version was prepared in, and keys that sign bundles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("golden", sa.String(64), nullable=True))
    op.add_column("versions", sa.Column("environment", sa.Text(), nullable=True))
    op.create_table(
        "bundle_keys",
        sa.Column("kid", sa.String(64), nullable=False),
        sa.Column("public", sa.LargeBinary(), nullable=False),
        sa.Column("voucher", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("kid", name=op.f("pk_bundle_keys")),
    )


def downgrade() -> None:
    op.drop_table("bundle_keys")
    op.drop_column("versions", "environment")
    op.drop_column("versions", "golden")
