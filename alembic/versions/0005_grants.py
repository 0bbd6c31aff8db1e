"""Grants with patterns, more actions, and an end; what scopes alone allowed becomes grants that can be seen."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ADMINISTRATION = "metadata upload label retire"
WATCHING = "metadata"
BEFORE = ("predict", "submit", "metadata")


def upgrade() -> None:
    op.add_column("grants", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    for column in authority():
        op.add_column("jobs", column)
    # Until now the scope alone was enough to administer every model, and to see every model's figures. Who administers
    # clients as well goes on without a grant.
    others = f"FROM clients WHERE {without('clients:admin')}"
    give(ADMINISTRATION, f"{others} AND {having('models:write')}")
    # Those that only watch: for who may use models as well, the figures now are of what it may see.
    watchers = " AND ".join(without(scope) for scope in ("models:write", "models:read", "predict"))
    give(WATCHING, f"{others} AND {having('metrics:read')} AND {watchers}")


def downgrade() -> None:
    # What the release before cannot tell apart goes: a pattern would be a name, and what ends would be for ever.
    op.execute("DELETE FROM grants WHERE expires_at IS NOT NULL OR model LIKE '%*%'")
    grants = sa.table("grants", sa.column("id", sa.Integer), sa.column("actions", sa.String))
    if not op.get_context().as_sql:
        rows = op.get_bind().execute(sa.select(grants.c.id, grants.c.actions)).all()
        for number, actions in rows:
            kept = " ".join(action for action in actions.split(" ") if action in BEFORE)
            row = grants.c.id == number
            op.execute(grants.update().where(row).values(actions=kept) if kept else grants.delete().where(row))
    with op.batch_alter_table("grants") as table:
        table.drop_column("expires_at")
    for column in authority():
        op.drop_column("jobs", column.name)


def authority() -> list[sa.Column[object]]:
    """By what a job was let in."""
    return [
        sa.Column("grant_id", sa.Integer(), nullable=True),
        sa.Column("token_id", sa.String(128), nullable=True),
        sa.Column("token_issued_at", sa.BigInteger(), nullable=True),
    ]


def give(actions: str, clients: str) -> None:
    op.execute(f"INSERT INTO grants (client_id, model, actions) SELECT id, '*', '{actions}' {clients}")


def having(scope: str) -> str:
    return f"(' ' || scopes || ' ') LIKE '% {scope} %'"


def without(scope: str) -> str:
    return f"(' ' || scopes || ' ') NOT LIKE '% {scope} %'"
