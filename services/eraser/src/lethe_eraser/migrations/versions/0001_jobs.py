"""Jobs, requests, progress, the intent journal, holds, tombstones, watermarks; outbox and inbox."""

from alembic import op

from lethe_outbox.migrations import create_inbox, create_outbox, drop_inbox, drop_outbox

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_TABLES = """
create table lethe.job (
    job_id uuid primary key,
    subject_ref text not null,
    bucket smallint not null check (bucket between 0 and 255),
    state text not null check (state in
        ('accepted', 'running', 'held', 'erased', 'verified', 'blocked', 'cancelled', 'failed')),
    held_from text,
    scanning boolean not null default false,
    generation integer not null default 0,
    sequence bigint not null default 0,
    subject_ciphertext text,
    deadline timestamptz not null,
    not_before timestamptz not null,
    retry_at timestamptz,
    round smallint not null default 1,
    batches integer not null default 0,
    attempts smallint not null default 0,
    totals jsonb not null default '{}',
    reasons jsonb not null default '{}',
    error text,
    traceparent text,
    created_at timestamptz not null,
    started_at timestamptz,
    closed_at timestamptz,
    constraint job_held_from_somewhere check ((state = 'held') = (held_from is not null)),
    constraint job_forgets_its_person check
        (subject_ciphertext is null or state not in ('verified', 'cancelled'))
);
create unique index job_one_open_per_person on lethe.job (subject_ref)
    where not scanning and state in ('accepted', 'running', 'held');
create index job_by_person on lethe.job (subject_ref);
create index job_by_deadline on lethe.job (bucket, deadline)
    where state in ('accepted', 'running', 'erased');

create table lethe.job_request (
    request_id uuid primary key,
    job_id uuid not null references lethe.job (job_id),
    attempt integer not null,
    deadline timestamptz not null,
    state text not null check (state in ('active', 'cancelled'))
);
create index job_request_by_job on lethe.job_request (job_id);

create table lethe.progress (
    job_id uuid not null,
    request_type text not null,
    source text not null,
    round smallint not null,
    after_key text,
    done boolean not null default false,
    deferred integer not null default 0,
    primary key (job_id, request_type, source)
);

create table lethe.journal (
    job_id uuid not null,
    batch integer not null,
    round smallint not null,
    request_type text not null,
    source text not null,
    after_key text,
    masked boolean not null default false,
    intent bytea not null,
    created_at timestamptz not null default now(),
    primary key (job_id, batch)
);

create table lethe.counted_object (
    job_id uuid not null,
    digest bigint not null,
    primary key (job_id, digest)
);

create table lethe.blocked_row (
    job_id uuid not null,
    table_name text not null,
    row_key text not null,
    kind text not null check (kind in ('feature', 'task', 'client', 'object')),
    request_type text not null,
    request_id bigint,
    reason text not null,
    round smallint not null,
    batch integer,
    primary key (job_id, table_name, row_key)
);

create table lethe.hold (
    subject_ref text not null,
    hold_id uuid not null,
    placed_at timestamptz not null default now(),
    primary key (subject_ref, hold_id)
);

create table lethe.tombstone (
    subject_ref text not null,
    kind text not null check (kind in ('cancelled', 'released')),
    id uuid not null,
    created_at timestamptz not null default now(),
    primary key (subject_ref, kind, id)
);

create table lethe.watermark (
    bucket smallint primary key,
    written_at timestamptz not null,
    received_at timestamptz not null default now()
);
"""


def upgrade() -> None:
    create_outbox(op, "lethe")
    create_inbox(op, "lethe")
    op.execute(_TABLES)


def downgrade() -> None:
    for table in (
        "watermark",
        "tombstone",
        "hold",
        "blocked_row",
        "counted_object",
        "journal",
        "progress",
        "job_request",
        "job",
    ):
        op.execute(f"drop table lethe.{table}")
    drop_inbox(op, "lethe")
    drop_outbox(op, "lethe")
