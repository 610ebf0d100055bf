"""Alembic helpers: each creates or drops a part of `schema.OutboxTables`, partitions included.

They are called from the revisions of whoever owns the database:

    def upgrade() -> None:
        create_outbox(op, "lethe")
"""

from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import text

from lethe_outbox.message import BUCKETS
from lethe_outbox.partitions import first_uuid7, months
from lethe_outbox.schema import DEFAULT_SCHEMA, OutboxTables

FILLFACTOR: Final = 85
"""Leaves room in each page for the acknowledgement, which then touches no index."""

_MONTHS_AHEAD: Final = 2


def create_outbox(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Create the outbox with its partitions, leases (all free), list of the dead and of relays."""
    tables = OutboxTables(schema)
    _create_schema(op, schema)
    for table in (tables.outbox, tables.dead, tables.bucket, tables.relay):
        table.create(op.get_bind())
    options = (
        f"WITH (fillfactor = {FILLFACTOR}, autovacuum_vacuum_scale_factor = 0, "
        "autovacuum_vacuum_threshold = 10000)"
    )
    for start, end in _spans():
        op.execute(
            f"CREATE TABLE {_name(schema, f'outbox_{start:%Y_%m}')} "
            f"PARTITION OF {_name(schema, 'outbox')} "
            f"FOR VALUES FROM ('{start.isoformat()}') TO ('{end.isoformat()}') {options}"
        )
    op.execute(
        f"CREATE TABLE {_name(schema, 'outbox_default')} "
        f"PARTITION OF {_name(schema, 'outbox')} DEFAULT {options}"
    )
    op.execute(
        f"INSERT INTO {_name(schema, 'outbox_bucket')} (bucket) "
        f"SELECT generate_series(0, {BUCKETS - 1})"
    )


def drop_outbox(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Drop what `create_outbox` made, rows included."""
    tables = OutboxTables(schema)
    for table in (tables.relay, tables.bucket, tables.dead, tables.outbox):
        table.drop(op.get_bind())


def create_inbox(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Create the inbox, in monthly partitions of the time that a UUIDv7 carries."""
    _create_schema(op, schema)
    OutboxTables(schema).inbox.create(op.get_bind())
    for start, end in _spans():
        op.execute(
            f"CREATE TABLE {_name(schema, f'inbox_{start:%Y_%m}')} "
            f"PARTITION OF {_name(schema, 'inbox')} "
            f"FOR VALUES FROM ('{first_uuid7(start)}') TO ('{first_uuid7(end)}')"
        )
    op.execute(
        f"CREATE TABLE {_name(schema, 'inbox_default')} "
        f"PARTITION OF {_name(schema, 'inbox')} DEFAULT"
    )


def drop_inbox(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Drop what `create_inbox` made."""
    OutboxTables(schema).inbox.drop(op.get_bind())


def create_dead_letter(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Create the table in which dead letters are recorded."""
    _create_schema(op, schema)
    OutboxTables(schema).dead_letter.create(op.get_bind())


def drop_dead_letter(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Drop what `create_dead_letter` made."""
    OutboxTables(schema).dead_letter.drop(op.get_bind())


def _create_schema(op: Any, schema: str | None) -> None:
    if schema is not None:
        op.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))


def _name(schema: str | None, table: str) -> str:
    return f'"{table}"' if schema is None else f'"{schema}"."{table}"'


def _spans() -> list[tuple[datetime, datetime]]:
    return [(span.start, span.end) for span in months(datetime.now(UTC), _MONTHS_AHEAD)]
