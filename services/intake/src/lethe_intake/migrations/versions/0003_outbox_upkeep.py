"""What the outbox's janitor and `lethe outbox purge` write down."""

from alembic import op

from lethe_outbox.migrations import create_outbox_upkeep, drop_outbox_upkeep

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "lethe"


def upgrade() -> None:
    create_outbox_upkeep(op, SCHEMA)


def downgrade() -> None:
    drop_outbox_upkeep(op, SCHEMA)
