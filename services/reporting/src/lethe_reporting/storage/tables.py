"""The tables of the read model, as migration 0001 lays them."""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Integer,
    MetaData,
    Table,
    Text,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from lethe_runtime.database import SCHEMA

METADATA: Final = MetaData(schema=SCHEMA)

EVENT_LOG: Final = Table(
    "event_log",
    METADATA,
    Column("event_id", Uuid, primary_key=True),
    Column("position", BigInteger, Identity(always=True), nullable=False),
    Column("source", Text, nullable=False),
    Column("aggregate", Uuid, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("type", Text, nullable=False),
    Column("time", DateTime(timezone=True), nullable=False),
    Column("subject_ref", Text, nullable=False),
    Column("request_ids", ARRAY(Uuid), nullable=False),
    Column("data", JSONB, nullable=False),
    Column("traceparent", Text),
    Column("recorded_at", DateTime(timezone=True), nullable=False),
)
"""Every event once, whatever becomes of the topics: the read model can be made anew from it."""

REQUEST: Final = Table(
    "request",
    METADATA,
    Column("request_id", Uuid, primary_key=True),
    Column("subject_ref", Text, nullable=False),
    Column("requested_sequence", BigInteger, nullable=False),
    Column("attempt", Integer),
    Column("team", Text),
    Column("reason", Text),
    Column("regulation", Text),
    Column("requested_at", DateTime(timezone=True)),
    Column("deadline", DateTime(timezone=True)),
    Column("cancel_requested_at", DateTime(timezone=True)),
    Column("job_id", Uuid),
    Column("state_sequence", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_since", DateTime(timezone=True)),
    Column("not_before", DateTime(timezone=True)),
    Column("hold_id", Uuid),
    Column("blockers", JSONB, nullable=False),
    Column("error", Text),
    Column("closed_at", DateTime(timezone=True)),
    Column("totals_sequence", BigInteger, nullable=False),
    Column("totals", JSONB, nullable=False),
    Column("updated_at", DateTime(timezone=True)),
)
"""One row per erasure request: `domain.RequestView`, field by field."""
