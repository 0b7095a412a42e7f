"""Users, API keys and catalog snapshots."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

NOW = sa.text("now()")
NO_METADATA = sa.text("'{}'::jsonb")


def upgrade() -> None:
    _users()
    _api_keys()
    _catalogs()


def _users() -> None:
    op.create_table(
        "users",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("alias", sa.Text),
        sa.Column("blocked", sa.Boolean, nullable=False, server_default=sa.text("false")),
        sa.Column("metadata", postgresql.JSONB, nullable=False, server_default=NO_METADATA),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("tenant", "user_id", name="users_pkey"),
    )


def _api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("public_id", sa.Text, nullable=False),
        sa.Column("secret_sha256", sa.LargeBinary, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column(
            "scopes", sa.ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'::text[]")
        ),
        sa.Column("best_lane", sa.Text, nullable=False, server_default=sa.text("'priority'")),
        sa.Column("allowed_models", sa.ARRAY(sa.Text)),
        sa.Column("user_field", sa.Text, nullable=False, server_default=sa.text("'tag'")),
        sa.Column("expires_at", sa.DateTime(timezone=True)),
        sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.text("true")),
        sa.Column("last_used_at", sa.DateTime(timezone=True)),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.Column("metadata", postgresql.JSONB, nullable=False, server_default=NO_METADATA),
        sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
        sa.UniqueConstraint("public_id", name="api_keys_public_id_key"),
        sa.ForeignKeyConstraint(
            ["tenant", "user_id"],
            ["users.tenant", "users.user_id"],
            name="api_keys_tenant_user_id_fkey",
        ),
        sa.CheckConstraint(
            "user_field IN ('tag', 'bill')", name=op.f("api_keys_user_field_check")
        ),
        sa.CheckConstraint(
            "octet_length(secret_sha256) = 32", name=op.f("api_keys_secret_sha256_check")
        ),
    )
    op.create_index("api_keys_tenant_user_id_idx", "api_keys", ["tenant", "user_id"])


def _catalogs() -> None:
    op.create_table(
        "catalog_snapshots",
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("note", sa.Text, nullable=False, server_default=sa.text("''")),
        sa.Column("applied_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("hash", name="catalog_snapshots_pkey"),
    )
    op.create_table(
        "catalog_active",
        sa.Column(
            "only_row",
            sa.SmallInteger,
            nullable=False,
            server_default=sa.text("1"),
            autoincrement=False,
        ),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("activated_at", sa.DateTime(timezone=True), nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("only_row", name="catalog_active_pkey"),
        sa.ForeignKeyConstraint(
            ["hash"], ["catalog_snapshots.hash"], name="catalog_active_hash_fkey"
        ),
        sa.CheckConstraint("only_row = 1", name=op.f("catalog_active_only_row_check")),
    )


def downgrade() -> None:
    op.drop_table("catalog_active")
    op.drop_table("catalog_snapshots")
    op.drop_table("api_keys")
    op.drop_table("users")
