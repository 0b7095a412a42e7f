"""The tables of Postgres, as SQLAlchemy Core sees them. The migrations make them."""

from sqlalchemy import (
    ARRAY,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

_NOW = func.now()
_NO_METADATA = text("'{}'::jsonb")

budgets = Table(
    "budgets",
    metadata,
    Column("budget_id", UUID(as_uuid=True), primary_key=True),
    Column("tenant", Text, nullable=False),
    # NULL: no limit.
    Column("max_budget", Numeric),
    # NULL: no warning.
    Column("soft_budget", Numeric),
    # NULL: never reset.
    Column("budget_duration_sec", Integer),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("max_budget >= 0", name="max_budget"),
    CheckConstraint("soft_budget >= 0", name="soft_budget"),
    CheckConstraint("budget_duration_sec > 0", name="budget_duration_sec"),
)

budget_resets = Table(
    "budget_resets",
    metadata,
    # No foreign keys: the history outlives the user and the budget.
    Column("tenant", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    # Of a key's own budget; empty: the user's.
    Column("key_id", Text, nullable=False, server_default=text("''")),
    Column("budget_id", UUID(as_uuid=True), nullable=False),
    Column("previous_spend", Numeric, nullable=False),
    Column("reset_at", DateTime(timezone=True), nullable=False),
    Column("next_reset_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant", "user_id", "key_id", "reset_at"),
)

users = Table(
    "users",
    metadata,
    Column("tenant", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("alias", Text),
    Column("blocked", Boolean, nullable=False, server_default=text("false")),
    Column("metadata", JSONB, nullable=False, server_default=_NO_METADATA),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("budget_id", UUID(as_uuid=True), ForeignKey("budgets.budget_id", ondelete="SET NULL")),
    Column("budget_started_at", DateTime(timezone=True)),
    Column("next_budget_reset_at", DateTime(timezone=True)),
    # From when on spend counts; NULL: from the beginning. Apart from the window, because assigning
    # a budget starts a window and keeps the spend.
    Column("spend_since", DateTime(timezone=True)),
    Column("limits", JSONB, nullable=False, server_default=_NO_METADATA),
    # Set: hidden, but spend rows and resets of theirs stay readable.
    Column("deleted_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("tenant", "user_id"),
    Index(None, "budget_id"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("public_id", Text, nullable=False, unique=True),
    Column("secret_sha256", LargeBinary, nullable=False),
    Column("name", Text),
    Column("tenant", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    Column("best_lane", Text, nullable=False, server_default=text("'priority'")),
    # NULL: every model.
    Column("allowed_models", ARRAY(Text)),
    Column("user_field", Text, nullable=False, server_default=text("'attribute'")),
    Column("expires_at", DateTime(timezone=True)),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("last_used_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("metadata", JSONB, nullable=False, server_default=_NO_METADATA),
    Column("limits", JSONB, nullable=False, server_default=_NO_METADATA),
    # Networks; empty: from everywhere.
    Column("ip_allow_list", ARRAY(Text), nullable=False, server_default=text("'{}'::text[]")),
    # The secret before the last rotation, while both work.
    Column("previous_sha256", LargeBinary),
    Column("previous_valid_until", DateTime(timezone=True)),
    # A budget of its own, beside its user's; the columns are those of `users`.
    Column("budget_id", UUID(as_uuid=True), ForeignKey("budgets.budget_id", ondelete="SET NULL")),
    Column("budget_started_at", DateTime(timezone=True)),
    Column("next_budget_reset_at", DateTime(timezone=True)),
    Column("spend_since", DateTime(timezone=True)),
    # Beyond what its models are set to; NULL: nothing.
    Column("attestation", Text),
    ForeignKeyConstraint(["tenant", "user_id"], ["users.tenant", "users.user_id"]),
    CheckConstraint("user_field IN ('attribute', 'bill')", name="user_field"),
    CheckConstraint("attestation IN ('record', 'require')", name="attestation"),
    CheckConstraint("octet_length(secret_sha256) = 32", name="secret_sha256"),
    CheckConstraint("octet_length(previous_sha256) = 32", name="previous_sha256"),
    Index(None, "tenant", "user_id"),
    Index(None, "budget_id"),
)

pricing = Table(
    "pricing",
    metadata,
    Column("model_key", Text, nullable=False),
    Column("effective_at", DateTime(timezone=True), nullable=False),
    Column("input_price_per_million", Numeric, nullable=False),
    Column("output_price_per_million", Numeric, nullable=False),
    # The whole price, these two included. Text, not jsonb: decimals come back as they went in.
    Column("price", Text, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    PrimaryKeyConstraint("model_key", "effective_at"),
    CheckConstraint("input_price_per_million >= 0", name="input_price_per_million"),
    CheckConstraint("output_price_per_million >= 0", name="output_price_per_million"),
)

audit_log = Table(
    "audit_log",
    metadata,
    # A UUIDv7: its order is that of time.
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("object_type", Text, nullable=False),
    Column("object_id", Text, nullable=False),
    # NULL where there was, or is, nothing.
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    Column("address", Text),
    Column("request_id", Text),
    Index(None, "object_type", "object_id"),
)

catalog_snapshots = Table(
    "catalog_snapshots",
    metadata,
    Column("hash", Text, primary_key=True),
    # Text, not jsonb: the hash is over the bytes as they are, and prices must stay decimals.
    Column("document", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("applied_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
)

catalog_active = Table(
    "catalog_active",
    metadata,
    # The check makes this a table of one row: there is one active catalog.
    Column("only_row", SmallInteger, primary_key=True, server_default=text("1")),
    Column("hash", Text, ForeignKey("catalog_snapshots.hash"), nullable=False),
    Column("activated_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("only_row = 1", name="only_row"),
)
