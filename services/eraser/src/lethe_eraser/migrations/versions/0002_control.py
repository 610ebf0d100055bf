"""What stops a job: records set aside, an operator's pause; and what lets it run at any hour."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_UP = """
alter table lethe.watermark rename column written_at to settled_until;

create table lethe.quarantine (
    topic text not null,
    partition integer not null,
    "offset" bigint not null,
    bucket smallint check (bucket between 0 and 255),
    event_id uuid,
    reason text not null,
    set_aside_at timestamptz not null default now(),
    released_at timestamptz,
    released_by text,
    note text,
    primary key (topic, partition, "offset"),
    constraint quarantine_released_by_somebody
        check ((released_at is null) = (released_by is null))
);
create index quarantine_open on lethe.quarantine (partition, bucket) where released_at is null;
create index quarantine_open_event on lethe.quarantine (event_id) where released_at is null;

alter table lethe.job
    add column paused boolean not null default false,
    add column run_now boolean not null default false;
"""

_DOWN = """
alter table lethe.job drop column paused, drop column run_now;
drop table lethe.quarantine;
alter table lethe.watermark rename column settled_until to written_at;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
