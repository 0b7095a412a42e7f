"""Sessions of one signer, newest first: whether it was seen before is asked with each session."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

TABLE = "attestation_sessions"
INDEX = "attestation_sessions_signer_idx"
COLUMNS = ["provider", "upstream_model", "signer", "fetched_at"]


def upgrade() -> None:
    op.create_index(INDEX, TABLE, COLUMNS)


def downgrade() -> None:
    op.drop_index(INDEX, TABLE)
