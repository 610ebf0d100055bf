"""What was missing, what is locked and until when, and what the CDN was told."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_UP = """
alter table lethe.job add column locked_until timestamptz;
alter table lethe.blocked_row add column until timestamptz;
alter table lethe.counted_object
    add column bucket text not null default '',
    add column missing boolean not null default false;

create table lethe.invalidation (
    job_id uuid not null,
    number integer not null,
    batch integer not null,
    reference uuid not null default gen_random_uuid(),
    distribution text not null,
    paths bytea not null,
    invalidation_id text,
    done boolean not null default false,
    created_at timestamptz not null default now(),
    primary key (job_id, number)
);
create index invalidation_unfinished on lethe.invalidation (created_at) where not done;
"""

_DOWN = """
drop table lethe.invalidation;
alter table lethe.counted_object drop column missing, drop column bucket;
alter table lethe.blocked_row drop column until;
alter table lethe.job drop column locked_until;
"""


def upgrade() -> None:
    op.execute(_UP)


def downgrade() -> None:
    op.execute(_DOWN)
