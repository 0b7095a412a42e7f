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
    LargeBinary,
    MetaData,
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
    PrimaryKeyConstraint("tenant", "user_id"),
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
    Column("user_field", Text, nullable=False, server_default=text("'tag'")),
    Column("expires_at", DateTime(timezone=True)),
    Column("is_active", Boolean, nullable=False, server_default=text("true")),
    Column("last_used_at", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=_NOW),
    Column("metadata", JSONB, nullable=False, server_default=_NO_METADATA),
    ForeignKeyConstraint(["tenant", "user_id"], ["users.tenant", "users.user_id"]),
    CheckConstraint("user_field IN ('tag', 'bill')", name="user_field"),
    CheckConstraint("octet_length(secret_sha256) = 32", name="secret_sha256"),
    Index(None, "tenant", "user_id"),
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
