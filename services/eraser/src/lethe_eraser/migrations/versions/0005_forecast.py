"""What a forecast is made of: the size of each job, and how fast people were erased."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_UP = """
alter table lethe.job add column rows_expected bigint;

create table lethe.erasing_pace (
    hour timestamptz primary key,
    rows bigint not null,
    seconds double precision not null
);
"""

_DOWN = """
drop table lethe.erasing_pace;
alter table lethe.job drop column rows_expected;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
