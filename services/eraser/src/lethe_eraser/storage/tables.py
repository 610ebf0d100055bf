"""The eraser's own tables, in schema `lethe` of the product's database.

No table holds a person, a URL or an object's key in clear.
"""

from pathlib import Path
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from lethe_eraser.domain import RUNNABLE

SCHEMA: Final = "lethe"
MIGRATIONS: Final = Path(__file__).parents[1] / "migrations"
VERSION_TABLE: Final = "alembic_version_eraser"

metadata: Final = MetaData(schema=SCHEMA)

_moment = DateTime(timezone=True)
_runnable = ", ".join(f"'{state}'" for state in RUNNABLE)

job: Final = Table(
    "job",
    metadata,
    Column("job_id", Uuid, primary_key=True),
    Column("subject_ref", Text, nullable=False),
    Column("bucket", SmallInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("held_from", Text),
    Column("scanning", Boolean, nullable=False, server_default=text("false")),
    Column("generation", Integer, nullable=False, server_default=text("0")),
    Column("sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("subject_ciphertext", Text),
    Column("deadline", _moment, nullable=False),
    Column("not_before", _moment, nullable=False),
    Column("retry_at", _moment),
    Column("round", SmallInteger, nullable=False, server_default=text("1")),
    Column("batches", Integer, nullable=False, server_default=text("0")),
    Column("attempts", SmallInteger, nullable=False, server_default=text("0")),
    Column("totals", JSONB, nullable=False, server_default=text("'{}'")),
    Column("reasons", JSONB, nullable=False, server_default=text("'{}'")),
    Column("locked_until", _moment),
    Column("error", Text),
    Column("traceparent", Text),
    Column("created_at", _moment, nullable=False),
    Column("started_at", _moment),
    Column("closed_at", _moment),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("run_now", Boolean, nullable=False, server_default=text("false")),
    Column("rows_expected", BigInteger),
    Column("retried_at", _moment),
    # One open job per person: what a new request joins is never in doubt.
    Index(
        "job_one_open_per_person",
        "subject_ref",
        unique=True,
        postgresql_where=text("not scanning and state in ('accepted', 'running', 'held')"),
    ),
    Index("job_by_person", "subject_ref"),
    Index(
        "job_by_deadline", "bucket", "deadline", postgresql_where=text(f"state in ({_runnable})")
    ),
)

job_request: Final = Table(
    "job_request",
    metadata,
    Column("request_id", Uuid, primary_key=True),
    Column("job_id", Uuid, ForeignKey(f"{SCHEMA}.job.job_id"), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("deadline", _moment, nullable=False),
    Column("state", Text, nullable=False),
    Column("requested_at", _moment, nullable=False),
    Index("job_request_by_job", "job_id"),
)

progress: Final = Table(
    "progress",
    metadata,
    Column("job_id", Uuid, nullable=False),
    Column("request_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("round", SmallInteger, nullable=False),
    Column("after_key", Text),
    Column("done", Boolean, nullable=False, server_default=text("false")),
    Column("deferred", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("job_id", "request_type", "source"),
)

journal: Final = Table(
    "journal",
    metadata,
    Column("job_id", Uuid, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("round", SmallInteger, nullable=False),
    Column("request_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("after_key", Text),
    Column("masked", Boolean, nullable=False, server_default=text("false")),
    Column("intent", LargeBinary, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("job_id", "batch"),
)

counted_object: Final = Table(
    "counted_object",
    metadata,
    Column("job_id", Uuid, nullable=False),
    Column("digest", BigInteger, nullable=False),
    Column("bucket", Text, nullable=False, server_default=text("''")),
    Column("missing", Boolean, nullable=False, server_default=text("false")),
    PrimaryKeyConstraint("job_id", "digest"),
)

blocked_row: Final = Table(
    "blocked_row",
    metadata,
    Column("job_id", Uuid, nullable=False),
    Column("table_name", Text, nullable=False),
    Column("row_key", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("request_type", Text, nullable=False),
    Column("request_id", BigInteger),
    Column("reason", Text, nullable=False),
    Column("round", SmallInteger, nullable=False),
    Column("batch", Integer),
    Column("until", _moment),
    PrimaryKeyConstraint("job_id", "table_name", "row_key"),
)

invalidation: Final = Table(
    "invalidation",
    metadata,
    Column("job_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("batch", Integer, nullable=False),
    Column("reference", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("distribution", Text, nullable=False),
    Column("paths", LargeBinary, nullable=False),
    Column("invalidation_id", Text),
    Column("done", Boolean, nullable=False, server_default=text("false")),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("job_id", "number"),
    Index("invalidation_unfinished", "created_at", postgresql_where=text("not done")),
)

hold: Final = Table(
    "hold",
    metadata,
    Column("subject_ref", Text, nullable=False),
    Column("hold_id", Uuid, nullable=False),
    Column("placed_at", _moment, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("subject_ref", "hold_id"),
)

tombstone: Final = Table(
    "tombstone",
    metadata,
    Column("subject_ref", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("created_at", _moment, nullable=False, server_default=func.now()),
    PrimaryKeyConstraint("subject_ref", "kind", "id"),
)

watermark: Final = Table(
    "watermark",
    metadata,
    Column("bucket", SmallInteger, primary_key=True, autoincrement=False),
    Column("settled_until", _moment, nullable=False),
    Column("received_at", _moment, nullable=False, server_default=func.now()),
)

erasing_pace: Final = Table(
    "erasing_pace",
    metadata,
    Column("hour", _moment, primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
)

quarantine: Final = Table(
    "quarantine",
    metadata,
    Column("topic", Text, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("bucket", SmallInteger),
    Column("event_id", Uuid),
    Column("reason", Text, nullable=False),
    Column("set_aside_at", _moment, nullable=False, server_default=func.now()),
    Column("released_at", _moment),
    Column("released_by", Text),
    Column("note", Text),
    PrimaryKeyConstraint("topic", "partition", "offset"),
    Index("quarantine_open", "partition", "bucket", postgresql_where=text("released_at is null")),
    Index("quarantine_open_event", "event_id", postgresql_where=text("released_at is null")),
)
