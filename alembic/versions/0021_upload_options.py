"""What an uploader said about a file that the file itself leaves open."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("versions", sa.Column("options", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("versions", "options")
