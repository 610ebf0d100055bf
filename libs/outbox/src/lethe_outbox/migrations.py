"""Alembic helpers: each creates or drops a part of `schema.OutboxTables`, partitions included.

They are called from the revisions of whoever owns the database:

    def upgrade() -> None:
        create_outbox(op, "lethe")

They look at nothing in the database, so they run in Alembic's offline mode too, and
`plain_sql` prints what they do.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from sqlalchemy import Table, insert, text
from sqlalchemy.schema import CreateIndex, CreateTable, DropTable

from lethe_outbox.message import BUCKETS
from lethe_outbox.names import for_text, qualified, quoted
from lethe_outbox.partitions.monthly import BY_TIME, BY_UUID7, PartitionKey, months
from lethe_outbox.schema import DEFAULT_SCHEMA, JANITOR, OutboxTables

FILLFACTOR: Final = 75
"""Leaves room in each page for the acknowledgement, which then touches no index."""

LEASES_FILLFACTOR: Final = 50
"""Likewise, for the renewals of a lease."""

_MONTHS_AHEAD: Final = 2
_PARTITION: Final = re.compile(r"(outbox|inbox)_(default|\d{4}_\d{2}.*)")


def but_outboxes(*schemas: str | None) -> Callable[..., bool]:
    """Return an `include_object` for Alembic's `context.configure`, for who uses its autogenerate.

    It passes over what the helpers here made in `schemas`. Autogenerate knows no partitions: it
    takes them for tables that nobody wants any more, and writes a revision that drops them.
    """
    ours = {table.name for table in OutboxTables().metadata.tables.values()}

    def include(one: Any, name: str | None, kind: str, *_: object) -> bool:
        return not (
            kind == "table"
            and one.schema in schemas
            and (name in ours or _PARTITION.fullmatch(name or ""))
        )

    return include


def create_outbox(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Create the outbox with its partitions, leases (all free), list of the dead and of relays."""
    tables = OutboxTables(schema)
    _create_schema(op, schema)
    for table in (tables.outbox, tables.dead, tables.bucket, tables.relay):
        _create(op, table)
    # SQLAlchemy's own word for it (`postgresql_with`) is one that 2.0 does not know.
    leases = qualified(schema, "outbox_bucket")
    _run(op, f"ALTER TABLE {leases} SET (fillfactor = {LEASES_FILLFACTOR})")
    options = (
        f" WITH (fillfactor = {FILLFACTOR}, autovacuum_vacuum_scale_factor = 0, "
        "autovacuum_vacuum_threshold = 10000)"
    )
    _create_partitions(op, schema, "outbox", BY_TIME, options)
    _run(
        op,
        f"INSERT INTO {leases} (bucket) SELECT generate_series(0, {BUCKETS - 1})",
    )


def drop_outbox(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Drop what `create_outbox` made, rows included."""
    tables = OutboxTables(schema)
    for table in (tables.relay, tables.bucket, tables.dead, tables.outbox):
        op.execute(DropTable(table))


def index_outbox_dead(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Replace the index of `outbox_dead`, on an existing outbox, by one for keys of any length.

    Safe to repeat, and of no effect on one that `create_outbox` made with it.
    """
    for index in OutboxTables(schema).dead.indexes:
        op.execute(CreateIndex(index, if_not_exists=True))
    _run(op, f"DROP INDEX IF EXISTS {qualified(schema, 'outbox_dead_held')}")


def create_outbox_upkeep(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Create what the janitor and `purge` write down, beside an outbox that is there already."""
    tables = OutboxTables(schema)
    for table in (tables.upkeep, tables.purged):
        _create(op, table)
    # The janitor counts as having run, so that its absence is noticed from now on.
    op.execute(insert(tables.upkeep).values(task=JANITOR))


def drop_outbox_upkeep(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Drop what `create_outbox_upkeep` made: who purged what is forgotten."""
    tables = OutboxTables(schema)
    for table in (tables.purged, tables.upkeep):
        op.execute(DropTable(table))


def create_inbox(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Create the inbox, in monthly partitions of the time that a UUIDv7 carries."""
    _create_schema(op, schema)
    _create(op, OutboxTables(schema).inbox)
    _create_partitions(op, schema, "inbox", BY_UUID7)


def drop_inbox(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Drop what `create_inbox` made."""
    op.execute(DropTable(OutboxTables(schema).inbox))


def create_dead_letter(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Create the table in which dead letters are recorded."""
    _create_schema(op, schema)
    _create(op, OutboxTables(schema).dead_letter)


def drop_dead_letter(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Drop what `create_dead_letter` made."""
    op.execute(DropTable(OutboxTables(schema).dead_letter))


def create_dead_letter_decisions(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Create what replays and discards write down, beside the dead letters."""
    _create(op, OutboxTables(schema).dead_letter_decision)


def drop_dead_letter_decisions(op: Any, schema: str | None = DEFAULT_SCHEMA) -> None:
    """Drop what `create_dead_letter_decisions` made: who decided what is forgotten."""
    op.execute(DropTable(OutboxTables(schema).dead_letter_decision))


def _create_schema(op: Any, schema: str | None) -> None:
    if schema is not None:
        _run(op, f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")


def _create(op: Any, table: Table) -> None:
    op.execute(CreateTable(table))
    for index in sorted(table.indexes, key=lambda one: str(one.name)):
        op.execute(CreateIndex(index))


def _create_partitions(
    op: Any, schema: str | None, table: str, key: PartitionKey, options: str = ""
) -> None:
    """Create the partitions of this month and the next ones, and the default one."""
    of = f"PARTITION OF {qualified(schema, table)}"
    for span in months(datetime.now(UTC), _MONTHS_AHEAD):
        name = qualified(schema, f"{table}_{span.start:%Y_%m}")
        start, end = key.literal(span.start), key.literal(span.end)
        _run(op, f"CREATE TABLE {name} {of} FOR VALUES FROM ('{start}') TO ('{end}'){options}")
    _run(op, f"CREATE TABLE {qualified(schema, f'{table}_default')} {of} DEFAULT{options}")


def _run(op: Any, statement: str) -> None:
    op.execute(text(for_text(statement)))


PARTS: Final[Mapping[str, tuple[Callable[..., None], ...]]] = {
    "outbox": (create_outbox, create_outbox_upkeep),
    "inbox": (create_inbox,),
    "dead-letter": (create_dead_letter, create_dead_letter_decisions),
}
"""Everything that is created, in the order in which it must be; what `plain_sql` prints."""
