"""What a key wants of confidential models."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CHECK = "api_keys_attestation_check"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("attestation", sa.Text))
    op.create_check_constraint(
        op.f(CHECK), "api_keys", "attestation IN ('record', 'require')"
    )


def downgrade() -> None:
    op.drop_constraint(op.f(CHECK), "api_keys")
    op.drop_column("api_keys", "attestation")
