"""Receipts, the evidence and the attestation sessions they rest on, and the transparency log."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

NOW = sa.text("now()")
EMPTY = sa.text("''")
MOMENT = sa.DateTime(timezone=True)
ID = postgresql.UUID(as_uuid=True)


def upgrade() -> None:
    _evidence()
    _receipts()
    _attestation_sessions()
    _receipt_keys()
    _log()


def _evidence() -> None:
    op.create_table(
        "evidence",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("digest", name="evidence_pkey"),
        sa.CheckConstraint("octet_length(digest) = 32", name=op.f("evidence_digest_check")),
    )


def _receipts() -> None:
    op.create_table(
        "receipts",
        sa.Column("receipt_id", ID, nullable=False),
        sa.Column("request_id", ID, nullable=False),
        sa.Column("tenant", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("key_id", sa.Text),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("upstream_model", sa.Text, nullable=False),
        sa.Column("tier", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("endpoint", sa.Text, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("label", sa.Text, nullable=False, server_default=sa.text("'pending'")),
        sa.Column("reason", sa.Text, nullable=False, server_default=EMPTY),
        sa.Column("detail", sa.Text, nullable=False, server_default=EMPTY),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=False),
        sa.Column("settled_at", MOMENT),
        sa.Column("session_id", ID),
        sa.Column("upstream_id", sa.Text, nullable=False, server_default=EMPTY),
        sa.Column("document", sa.Text),
        sa.Column("leaf_hash", sa.LargeBinary),
        sa.Column("log_index", sa.BigInteger),
        sa.PrimaryKeyConstraint("receipt_id", name="receipts_pkey"),
        sa.UniqueConstraint("log_index", name="receipts_log_index_key"),
        *_receipt_checks(),
    )
    op.create_index("receipts_request_id_idx", "receipts", ["request_id"])
    for first in ([], ["tenant"], ["label"], ["model"], ["provider"]):
        columns = [*first, "started_at", "receipt_id"]
        op.create_index(f"receipts_{'_'.join(columns)}_idx", "receipts", columns)
    op.create_index(
        "receipts_unlogged_idx", "receipts", ["settled_at", "receipt_id"],
        postgresql_where=sa.text("log_index IS NULL AND leaf_hash IS NOT NULL"),
    )


def _receipt_checks() -> list[sa.CheckConstraint]:
    return [
        sa.CheckConstraint(
            "label IN ('pending', 'verified', 'gateway_only', 'failed', 'n/a')",
            name=op.f("receipts_label_check"),
        ),
        sa.CheckConstraint("kind IN ('tee', 'zdr', 'refusal')", name=op.f("receipts_kind_check")),
        sa.CheckConstraint(
            "(label = 'pending') = (document IS NULL)"
            " AND (label = 'pending') = (settled_at IS NULL)"
            " AND (label = 'pending') = (leaf_hash IS NULL)",
            name=op.f("receipts_settled_check"),
        ),
        sa.CheckConstraint(
            "octet_length(leaf_hash) = 32", name=op.f("receipts_leaf_hash_check")
        ),
        sa.CheckConstraint(
            "log_index IS NULL OR (log_index >= 0 AND leaf_hash IS NOT NULL)",
            name=op.f("receipts_log_index_check"),
        ),
    ]


def _attestation_sessions() -> None:
    op.create_table(
        "attestation_sessions",
        sa.Column("session_id", ID, nullable=False),
        *(
            sa.Column(name, sa.Text, nullable=False)
            for name in (
                "provider", "upstream_model", "host", "shape", "scope", "signer", "algorithm",
                "tls_spki", "compose_hash", "os_image_hash", "tcb_status", "label",
            )
        ),
        sa.Column("factors", postgresql.JSONB, nullable=False),
        sa.Column("synthetic", sa.Boolean, nullable=False),
        sa.Column("fetched_at", MOMENT, nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("nonce", sa.Text, nullable=False),
        sa.Column("evidence", postgresql.JSONB, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="attestation_sessions_pkey"),
        sa.CheckConstraint(
            "label IN ('verified', 'failed')", name=op.f("attestation_sessions_label_check")
        ),
    )
    for columns in (["fetched_at", "session_id"], ["provider", "upstream_model", "fetched_at"]):
        op.create_index(
            f"attestation_sessions_{'_'.join(columns)}_idx", "attestation_sessions", columns
        )


def _receipt_keys() -> None:
    op.create_table(
        "receipt_keys",
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("first_used_at", MOMENT, nullable=False, server_default=NOW),
        sa.PrimaryKeyConstraint("key_id", name="receipt_keys_pkey"),
        sa.CheckConstraint(
            "octet_length(public_key) = 32", name=op.f("receipt_keys_public_key_check")
        ),
    )


def _log() -> None:
    op.create_table(
        "log_nodes",
        sa.Column("level", sa.SmallInteger, nullable=False, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("hash", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("level", "position", name="log_nodes_pkey"),
        sa.CheckConstraint("octet_length(hash) = 32", name=op.f("log_nodes_hash_check")),
    )
    op.create_table(
        "log_heads",
        sa.Column("tree_size", sa.BigInteger, nullable=False, autoincrement=False),
        sa.Column("root_hash", sa.LargeBinary, nullable=False),
        sa.Column("signed_at", sa.BigInteger, nullable=False),
        sa.Column("key_id", sa.Text, nullable=False),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("tree_size", name="log_heads_pkey"),
        sa.ForeignKeyConstraint(
            ["key_id"], ["receipt_keys.key_id"], name="log_heads_key_id_fkey"
        ),
        sa.CheckConstraint(
            "octet_length(root_hash) = 32", name=op.f("log_heads_root_hash_check")
        ),
    )


def downgrade() -> None:
    for table in (
        "log_heads", "log_nodes", "receipt_keys", "attestation_sessions", "receipts", "evidence"
    ):
        op.drop_table(table)
