"""The tables of Postgres, as SQLAlchemy Core sees them. The migrations make them."""

from sqlalchemy import (
    ARRAY,
    BigInteger,
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

evidence = Table(
    "evidence",
    metadata,
    # SHA-256 of the content: what many receipts rest on is kept once.
    Column("digest", LargeBinary, primary_key=True),
    # UTF-8. Not text, which holds no NUL, for a provider may send one.
    Column("content", LargeBinary, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("octet_length(digest) = 32", name="digest"),
)

receipts = Table(
    "receipts",
    metadata,
    Column("receipt_id", UUID(as_uuid=True), primary_key=True),
    Column("request_id", UUID(as_uuid=True), nullable=False),
    Column("tenant", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("key_id", Text),
    Column("model", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("tier", Text, nullable=False),
    # tee, zdr, refusal.
    Column("kind", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("label", Text, nullable=False, server_default=text("'pending'")),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("detail", Text, nullable=False, server_default=text("''")),
    Column("started_at", DateTime(timezone=True), nullable=False),
    Column("ended_at", DateTime(timezone=True), nullable=False),
    Column("settled_at", DateTime(timezone=True)),
    # No foreign key: sessions may be kept for a shorter time than receipts.
    Column("session_id", UUID(as_uuid=True)),
    Column("upstream_id", Text, nullable=False, server_default=text("''")),
    # Text, not jsonb: it is signed, and hashed into the log, as it is.
    Column("document", Text),
    Column("leaf_hash", LargeBinary),
    # NULL: not in the log yet.
    Column("log_index", BigInteger, unique=True),
    CheckConstraint(
        "label IN ('pending', 'verified', 'gateway_only', 'failed', 'n/a')", name="label"
    ),
    CheckConstraint("kind IN ('tee', 'zdr', 'refusal')", name="kind"),
    # What is settled is whole; what is not, has nothing of it.
    CheckConstraint(
        "(label = 'pending') = (document IS NULL)"
        " AND (label = 'pending') = (settled_at IS NULL)"
        " AND (label = 'pending') = (leaf_hash IS NULL)",
        name="settled",
    ),
    CheckConstraint("octet_length(leaf_hash) = 32", name="leaf_hash"),
    CheckConstraint(
        "log_index IS NULL OR (log_index >= 0 AND leaf_hash IS NOT NULL)", name="log_index"
    ),
    Index(None, "request_id"),
    # Of every filter, newest first; each ends in what tells two receipts of one moment apart.
    Index(None, "started_at", "receipt_id"),
    Index(None, "tenant", "started_at", "receipt_id"),
    Index(None, "label", "started_at", "receipt_id"),
    Index(None, "kind", "started_at", "receipt_id"),
    Index(None, "model", "started_at", "receipt_id"),
    Index(None, "provider", "started_at", "receipt_id"),
    Index(
        "receipts_unlogged_idx",
        "settled_at",
        "receipt_id",
        postgresql_where=text("log_index IS NULL AND leaf_hash IS NOT NULL"),
    ),
)

attestation_sessions = Table(
    "attestation_sessions",
    metadata,
    Column("session_id", UUID(as_uuid=True), primary_key=True),
    Column("provider", Text, nullable=False),
    Column("upstream_model", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("shape", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("signer", Text, nullable=False),
    Column("algorithm", Text, nullable=False),
    Column("tls_spki", Text, nullable=False),
    Column("compose_hash", Text, nullable=False),
    Column("os_image_hash", Text, nullable=False),
    Column("tcb_status", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("factors", JSONB, nullable=False),
    Column("synthetic", Boolean, nullable=False),
    Column("fetched_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("nonce", Text, nullable=False),
    # Digests of its texts: report, collateral, nras, nras_keys.
    Column("evidence", JSONB, nullable=False),
    CheckConstraint("label IN ('verified', 'failed')", name="label"),
    Index(None, "fetched_at", "session_id"),
    Index(None, "provider", "upstream_model", "fetched_at"),
    Index("attestation_sessions_signer_idx", "provider", "upstream_model", "signer", "fetched_at"),
)

log_nodes = Table(
    "log_nodes",
    metadata,
    # The hash of the full subtree over leaves position * 2^level and on, 2^level of them.
    Column("level", SmallInteger, nullable=False),
    Column("position", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    PrimaryKeyConstraint("level", "position"),
    CheckConstraint("octet_length(hash) = 32", name="hash"),
)

log_heads = Table(
    "log_heads",
    metadata,
    Column("tree_size", BigInteger, primary_key=True, autoincrement=False),
    Column("root_hash", LargeBinary, nullable=False),
    # Epoch milliseconds, as they are signed.
    Column("signed_at", BigInteger, nullable=False),
    Column("key_id", Text, ForeignKey("receipt_keys.key_id"), nullable=False),
    Column("signature", LargeBinary, nullable=False),
    CheckConstraint("octet_length(root_hash) = 32", name="root_hash"),
)

receipt_keys = Table(
    "receipt_keys",
    metadata,
    # Public keys of this gateway's: the present one and those before it. None is ever deleted.
    Column("key_id", Text, primary_key=True),
    Column("public_key", LargeBinary, nullable=False),
    Column("first_used_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    CheckConstraint("octet_length(public_key) = 32", name="public_key"),
)
