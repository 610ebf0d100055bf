"""Since when each request wants the person erased, and when a job was last let begin anew."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_UP = """
alter table lethe.job add column retried_at timestamptz;

alter table lethe.job_request add column requested_at timestamptz;
-- What was accepted earlier is known to have been asked for by then.
update lethe.job_request r set requested_at = j.created_at
    from lethe.job j where j.job_id = r.job_id;
alter table lethe.job_request alter column requested_at set not null;
"""

_DOWN = """
alter table lethe.job_request drop column requested_at;
alter table lethe.job drop column retried_at;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
