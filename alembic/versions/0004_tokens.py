"""Records of tokens: refresh tokens, revoked tokens, keys and identities of clients."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INDEXES = (
    ("token_families_by_identity", "token_families", "identity_id"),
    ("token_families_by_end", "token_families", "ends_at"),
    ("refresh_tokens_by_family", "refresh_tokens", "family"),
    ("revoked_tokens_by_identity", "revoked_tokens", "identity_id"),
    ("revoked_tokens_by_expiry", "revoked_tokens", "expires_at"),
    ("used_assertions_by_expiry", "used_assertions", "expires_at"),
    ("client_identities_by_client", "client_identities", "client_id"),
)


def upgrade() -> None:
    with op.batch_alter_table("clients") as clients:
        clients.add_column(sa.Column("previous_secret_hash", sa.String(64), nullable=True))
        clients.add_column(sa.Column("previous_secret_until", sa.BigInteger(), nullable=True))
    make_tables_of_tokens()
    make_tables_of_clients()
    for index, table, column in INDEXES:
        op.create_index(index, table, [column])


def downgrade() -> None:
    for index, table, _ in reversed(INDEXES):
        op.drop_index(index, table_name=table)
    for table in (
        "client_identities",
        "client_keys",
        "used_assertions",
        "revoked_tokens",
        "refresh_tokens",
        "token_families",
    ):
        op.drop_table(table)
    with op.batch_alter_table("clients") as clients:
        clients.drop_column("previous_secret_until")
        clients.drop_column("previous_secret_hash")


def make_tables_of_tokens() -> None:
    op.create_table(
        "token_families",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("identity_id", sa.String(64), nullable=False),
        sa.Column("scopes", sa.String(512), nullable=False),
        sa.Column("idle_seconds", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), server_default=clock(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_token_families")),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("family", sa.String(32), nullable=False),
        sa.Column("created_at", sa.BigInteger(), server_default=clock(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["family"], ["token_families.id"], name=op.f("fk_refresh_tokens_family_token_families"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_refresh_tokens")),
    )
    op.create_table(
        "revoked_tokens",
        sa.Column("id", sa.String(128), nullable=False),
        sa.Column("identity_id", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_revoked_tokens")),
    )
    op.create_table(
        "used_assertions",
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_used_assertions")),
    )


def make_tables_of_clients() -> None:
    op.create_table(
        "client_keys",
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.Column("kid", sa.String(128), nullable=False),
        sa.Column("algorithm", sa.String(8), nullable=False),
        sa.Column("jwk", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), server_default=clock(), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_client_keys_client_id_clients"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("client_id", "kid", name=op.f("pk_client_keys")),
    )
    op.create_table(
        "client_identities",
        sa.Column("issuer", sa.String(256), nullable=False),
        sa.Column("subject", sa.String(256), nullable=False),
        sa.Column("client_id", sa.String(64), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_client_identities_client_id_clients"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("issuer", "subject", name=op.f("pk_client_identities")),
    )


def clock() -> sa.TextClause:
    """The database's clock in milliseconds since 1970, spelled out: migrations stay as they were."""
    if op.get_context().dialect.name == "sqlite":
        return sa.text("(CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER))")
    return sa.text("CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)")
