"""Who decided what about a dead letter, and why."""

from alembic import op

from lethe_outbox.migrations import create_dead_letter_decisions, drop_dead_letter_decisions

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "lethe"


def upgrade() -> None:
    create_dead_letter_decisions(op, SCHEMA)


def downgrade() -> None:
    drop_dead_letter_decisions(op, SCHEMA)
