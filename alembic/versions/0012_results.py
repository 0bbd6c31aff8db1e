"""How long clients keep results, which keys were revoked, and as what a dead letter was tried again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("client_limits", sa.Column("job_keep_seconds", sa.Integer(), nullable=True))
    op.add_column("signing_keys", sa.Column("revoked_at", sa.BigInteger(), nullable=True))
    op.add_column("jobs", sa.Column("replayed_as", sa.String(32), nullable=True))


def downgrade() -> None:
    op.drop_column("jobs", "replayed_as")
    op.drop_column("signing_keys", "revoked_at")
    op.drop_column("client_limits", "job_keep_seconds")
