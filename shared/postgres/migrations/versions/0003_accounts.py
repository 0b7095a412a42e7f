"""Budgets of keys, limits of users, a budget's soft limit; the history of resets of both."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("budgets", sa.Column("soft_budget", sa.Numeric))
    op.create_check_constraint(op.f("budgets_soft_budget_check"), "budgets", "soft_budget >= 0")
    op.add_column(
        "users",
        sa.Column(
            "limits", postgresql.JSONB, nullable=False, server_default=sa.text("'{}'::jsonb")
        ),
    )
    _keys()
    _resets()


def _keys() -> None:
    for column in (
        sa.Column("budget_id", postgresql.UUID(as_uuid=True)),
        sa.Column("budget_started_at", MOMENT),
        sa.Column("next_budget_reset_at", MOMENT),
        sa.Column("spend_since", MOMENT),
    ):
        op.add_column("api_keys", column)
    op.create_foreign_key(
        "api_keys_budget_id_fkey",
        "api_keys",
        "budgets",
        ["budget_id"],
        ["budget_id"],
        ondelete="SET NULL",
    )
    op.create_index(op.f("api_keys_budget_id_idx"), "api_keys", ["budget_id"])


def _resets() -> None:
    """A key's resets stand beside its user's."""
    op.add_column(
        "budget_resets", sa.Column("key_id", sa.Text, nullable=False, server_default=sa.text("''"))
    )
    op.drop_constraint("budget_resets_pkey", "budget_resets")
    op.create_primary_key(
        "budget_resets_pkey", "budget_resets", ["tenant", "user_id", "key_id", "reset_at"]
    )


def downgrade() -> None:
    op.execute("DELETE FROM budget_resets WHERE key_id <> ''")
    op.drop_constraint("budget_resets_pkey", "budget_resets")
    op.create_primary_key("budget_resets_pkey", "budget_resets", ["tenant", "user_id", "reset_at"])
    op.drop_column("budget_resets", "key_id")
    for name in ("spend_since", "next_budget_reset_at", "budget_started_at", "budget_id"):
        op.drop_column("api_keys", name)
    op.drop_column("users", "limits")
    op.drop_column("budgets", "soft_budget")
