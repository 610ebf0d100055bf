"""The round of control watermarks, counted in one row whose lock serialises those who write it."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "lethe"


def upgrade() -> None:
    op.create_table(
        "control_tick",
        sa.Column("singleton", sa.Boolean, sa.CheckConstraint("singleton"), primary_key=True),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("written_at", sa.DateTime(timezone=True), nullable=False),
        schema=SCHEMA,
    )
    op.execute("insert into lethe.control_tick values (true, 0, '-infinity')")


def downgrade() -> None:
    op.drop_table("control_tick", schema=SCHEMA)
