"""By what right an import was asked for and when it began, and which version's upload brought samples along."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_imports", sa.Column("authority", sa.Text(), nullable=True))
    op.add_column("model_imports", sa.Column("begun_at", sa.BigInteger(), nullable=True))
    op.add_column("model_samples", sa.Column("version", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("model_samples", "version")
    op.drop_column("model_imports", "begun_at")
    op.drop_column("model_imports", "authority")
