"""Requests, idempotency keys, API keys, and the outbox and inbox beside them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from lethe_outbox.migrations import create_inbox, create_outbox
from lethe_runtime.storage import create_api_key_table

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "lethe"


def upgrade() -> None:
    op.create_table(
        "erasure_request",
        sa.Column("request_id", sa.Uuid, primary_key=True),
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("subject_ref", sa.Text, nullable=False),
        sa.Column("subject_ciphertext", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("regulation", sa.Text, nullable=False),
        sa.Column("metadata", JSONB),
        sa.Column("requested_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("job_id", sa.Uuid),
        sa.Column("job_sequence", sa.BigInteger),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "(job_id is null) = (job_sequence is null)", name="erasure_request_job_has_sequence"
        ),
        schema=SCHEMA,
    )
    # One look-up per submission, and the count of open requests.
    op.create_index(
        "erasure_request_open",
        "erasure_request",
        ["subject_ref", "team", "state"],
        schema=SCHEMA,
        postgresql_where=sa.text("closed_at is null"),
    )
    op.create_table(
        "idempotency",
        sa.Column("team", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column(
            "request_id",
            sa.Uuid,
            sa.ForeignKey(f"{SCHEMA}.erasure_request.request_id"),
            nullable=False,
        ),
        sa.Column("joined", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("team", "key"),
        schema=SCHEMA,
    )
    create_api_key_table(op, SCHEMA)
    create_outbox(op, SCHEMA)
    create_inbox(op, SCHEMA)


def downgrade() -> None:
    raise NotImplementedError("requests are promises; a migration never drops them")
