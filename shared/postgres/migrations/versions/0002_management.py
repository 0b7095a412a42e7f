"""Budgets, prices, the audit log; what users and keys have for them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
MOMENT = sa.DateTime(timezone=True)
USER_FIELD_CHECK = "api_keys_user_field_check"


def upgrade() -> None:
    _budgets()
    _users()
    _api_keys()
    _pricing()
    _audit_log()


def _budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("budget_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("max_budget", sa.Numeric),
        sa.Column("budget_duration_sec", sa.Integer),
        sa.Column("created_at", MOMENT, nullable=False, server_default=NOW),
        sa.Column("updated_at", MOMENT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("budget_id", name="budgets_pkey"),
        sa.CheckConstraint("max_budget >= 0", name=op.f("budgets_max_budget_check")),
        sa.CheckConstraint(
            "budget_duration_sec > 0", name=op.f("budgets_budget_duration_sec_check")
        ),
    )
    op.create_table(
        "budget_resets",
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("budget_id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("previous_spend", sa.Numeric, nullable=False),
        sa.Column("reset_at", MOMENT, nullable=False),
        sa.Column("next_reset_at", MOMENT),
        sa.PrimaryKeyConstraint("tenant", "user_id", "reset_at", name="budget_resets_pkey"),
    )


def _users() -> None:
    for column in (
        sa.Column("budget_id", postgresql.UUID(as_uuid=True)),
        sa.Column("budget_started_at", MOMENT),
        sa.Column("next_budget_reset_at", MOMENT),
        sa.Column("spend_since", MOMENT),
        sa.Column("deleted_at", MOMENT),
    ):
        op.add_column("users", column)
    op.create_foreign_key(
        "users_budget_id_fkey", "users", "budgets", ["budget_id"], ["budget_id"],
        ondelete="SET NULL",
    )
    op.create_index("users_budget_id_idx", "users", ["budget_id"])


def _api_keys() -> None:
    for column in (
        sa.Column(
            "limits", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")
        ),
        sa.Column(
            "ip_allow_list", sa.ARRAY(sa.Text), nullable=False,
            server_default=sa.text("'{}'::text[]"),
        ),
        sa.Column("previous_sha256", sa.LargeBinary),
        sa.Column("previous_valid_until", MOMENT),
    ):
        op.add_column("api_keys", column)
    op.create_check_constraint(
        op.f("api_keys_previous_sha256_check"), "api_keys", "octet_length(previous_sha256) = 32"
    )
    op.drop_constraint(op.f(USER_FIELD_CHECK), "api_keys")
    op.execute("UPDATE api_keys SET user_field = 'attribute' WHERE user_field = 'tag'")
    op.alter_column("api_keys", "user_field", server_default=sa.text("'attribute'"))
    op.create_check_constraint(
        op.f(USER_FIELD_CHECK), "api_keys", "user_field IN ('attribute', 'bill')"
    )


def _pricing() -> None:
    op.create_table(
        "pricing",
        sa.Column("model_key", sa.Text, nullable=False),
        sa.Column("effective_at", MOMENT, nullable=False),
        sa.Column("input_price_per_million", sa.Numeric, nullable=False),
        sa.Column("output_price_per_million", sa.Numeric, nullable=False),
        sa.Column("price", sa.Text, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False, server_default=NOW),
        sa.Column("updated_at", MOMENT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("model_key", "effective_at", name="pricing_pkey"),
        sa.CheckConstraint(
            "input_price_per_million >= 0", name=op.f("pricing_input_price_per_million_check")
        ),
        sa.CheckConstraint(
            "output_price_per_million >= 0", name=op.f("pricing_output_price_per_million_check")
        ),
    )


def _audit_log() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", postgresql.UUID(as_uuid=True), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("object_type", sa.Text, nullable=False),
        sa.Column("object_id", sa.Text, nullable=False),
        sa.Column("before", postgresql.JSONB),
        sa.Column("after", postgresql.JSONB),
        sa.Column("address", sa.Text),
        sa.Column("request_id", sa.Text),
        sa.PrimaryKeyConstraint("id", name="audit_log_pkey"),
    )
    op.create_index(
        "audit_log_object_type_object_id_idx", "audit_log", ["object_type", "object_id"]
    )


def downgrade() -> None:
    op.drop_table("audit_log")
    op.drop_table("pricing")
    op.drop_constraint(op.f(USER_FIELD_CHECK), "api_keys")
    op.execute("UPDATE api_keys SET user_field = 'tag' WHERE user_field = 'attribute'")
    op.alter_column("api_keys", "user_field", server_default=sa.text("'tag'"))
    op.create_check_constraint(op.f(USER_FIELD_CHECK), "api_keys", "user_field IN ('tag', 'bill')")
    for column in ("limits", "ip_allow_list", "previous_sha256", "previous_valid_until"):
        op.drop_column("api_keys", column)
    for column in (
        "budget_id", "budget_started_at", "next_budget_reset_at", "spend_since", "deleted_at"
    ):
        op.drop_column("users", column)
    op.drop_table("budget_resets")
    op.drop_table("budgets")
