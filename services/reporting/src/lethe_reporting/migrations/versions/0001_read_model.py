"""The event log, the requests, API keys, and the inbox and dead letters beside them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from lethe_outbox.migrations import create_dead_letter, create_inbox
from lethe_runtime.storage import create_api_key_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "lethe"


def upgrade() -> None:
    op.create_table(
        "event_log",
        sa.Column("event_id", sa.Uuid, primary_key=True),
        sa.Column("position", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("aggregate", sa.Uuid, nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("subject_ref", sa.Text, nullable=False),
        sa.Column("request_ids", sa.ARRAY(sa.Uuid), nullable=False),
        sa.Column("data", JSONB, nullable=False),
        sa.Column("traceparent", sa.Text),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("not data ? 'subject'", name="event_log_holds_no_subject"),
        schema=SCHEMA,
    )
    op.create_index("event_log_position", "event_log", ["position"], unique=True, schema=SCHEMA)
    op.create_index(
        "event_log_of_request",
        "event_log",
        ["request_ids"],
        schema=SCHEMA,
        postgresql_using="gin",
    )
    op.create_index(
        "event_log_of_person",
        "event_log",
        ["subject_ref"],
        schema=SCHEMA,
        postgresql_where=sa.text("request_ids = '{}'"),
    )
    op.create_table(
        "request",
        sa.Column("request_id", sa.Uuid, primary_key=True),
        sa.Column("subject_ref", sa.Text, nullable=False),
        sa.Column("requested_sequence", sa.BigInteger, nullable=False),
        sa.Column("attempt", sa.Integer),
        sa.Column("team", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("regulation", sa.Text),
        sa.Column("requested_at", sa.DateTime(timezone=True)),
        sa.Column("deadline", sa.DateTime(timezone=True)),
        sa.Column("cancel_requested_at", sa.DateTime(timezone=True)),
        sa.Column("job_id", sa.Uuid),
        sa.Column("state_sequence", sa.BigInteger, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("state_since", sa.DateTime(timezone=True)),
        sa.Column("not_before", sa.DateTime(timezone=True)),
        sa.Column("hold_id", sa.Uuid),
        sa.Column("blockers", JSONB, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.Column("totals_sequence", sa.BigInteger, nullable=False),
        sa.Column("totals", JSONB, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        schema=SCHEMA,
    )
    op.create_index("request_by_state", "request", ["state", "request_id"], schema=SCHEMA)
    op.create_index("request_by_team", "request", ["team", "request_id"], schema=SCHEMA)
    # Who is late is asked of the few that are not done, however many were ever asked for.
    op.create_index(
        "request_owed",
        "request",
        ["deadline"],
        schema=SCHEMA,
        postgresql_where=sa.text("state not in ('verified', 'cancelled')"),
    )
    create_api_key_table(op, SCHEMA)
    create_inbox(op, SCHEMA)
    create_dead_letter(op, SCHEMA)


def downgrade() -> None:
    raise NotImplementedError("the log is all there is once topics have expired")
