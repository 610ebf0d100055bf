"""Held-back keys of any length."""

from alembic import op

from lethe_outbox.migrations import index_outbox_dead

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "lethe"


def upgrade() -> None:
    index_outbox_dead(op, SCHEMA)


def downgrade() -> None:
    """Nothing: earlier programs use this index as well."""
