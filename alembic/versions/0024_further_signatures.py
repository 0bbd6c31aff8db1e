"""Signatures of a version's SavedModel beside the one that answers whoever names none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("further_signatures", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("versions", "further_signatures")
