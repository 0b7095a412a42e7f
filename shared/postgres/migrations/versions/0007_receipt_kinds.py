"""Receipts of one kind, newest first: refusals are few, and lie far apart."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

TABLE = "receipts"
INDEX = "receipts_kind_started_at_receipt_id_idx"
COLUMNS = ["kind", "started_at", "receipt_id"]


def upgrade() -> None:
    op.create_index(INDEX, TABLE, COLUMNS)


def downgrade() -> None:
    op.drop_index(INDEX, TABLE)
