"""The SQL by which partitions are made ahead and dropped: one transaction each, killable anywhere.

Whoever changes the partitions of a table holds its advisory lock to the end of the transaction, so
that there is one at a time per table, also behind a pooler in transaction mode. No statement waits
longer than `lock_seconds` for a lock: whoever wants the table queues behind a waiting `DROP`.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import partial
from itertools import count
from typing import Final

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox.errors import ArgumentError
from lethe_outbox.names import qualified
from lethe_outbox.partitions.monthly import (
    Partition,
    PartitionKey,
    Span,
    default_of,
    free_name,
    later_part,
    missing,
    parse_bounds,
)

_log: Final = logging.getLogger(__name__)

MOST_MOVED_ROWS: Final = 20_000
"""Rows moved out of a default partition in one go; it is locked for well under a second then."""

_LIST: Final = text("""
select c.oid::int8 as oid, n.nspname, c.relname, pg_get_expr(c.relpartbound, c.oid) as bounds
from pg_inherits i
join pg_class c on c.oid = i.inhrelid
join pg_namespace n on n.oid = c.relnamespace
where i.inhparent = cast(:parent as regclass) and not i.inhdetachpending
    -- Null once the partition was dropped, although our snapshot still shows it.
    and pg_get_expr(c.relpartbound, c.oid) is not null
order by c.relname
""")
_NAMES: Final = text("""
select relname from pg_class
where relnamespace = (select relnamespace from pg_class where oid = cast(:parent as regclass))
""")
_SCHEMA: Final = text("""
select nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.oid = cast(:parent as regclass)
""")
_OPTIONS: Final = text("select array_to_string(reloptions, ', ') from pg_class where oid = :oid")
_TRY_LOCK: Final = text("select pg_try_advisory_xact_lock(hashtextextended(:what, 0))")
_LIMITS: Final = text("""
select set_config('lock_timeout', :lock, true), set_config('timezone', 'UTC', true),
    set_config('statement_timeout', :statement, true)
""")

_COLUMNS: Final = text("""
select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
where attrelid = cast(:parent as regclass) and attnum > 0 and not attisdropped
""")
_KEPT_OUT: Final = text("""
select exists (select from pg_locks where relation = :oid and not granted
    and database = (select oid from pg_database where datname = current_database()))
""")
_LOCKED: Final = (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected)
_ATTEMPTS: Final = 5
"""At the moment of the drop: the look before it may have taken long and is not to be repeated."""


class Outcome(Enum):
    """What became of a step."""

    DONE = "done"
    BUSY = "busy"
    """Somebody else does it or works in the table, or the database refused; to be tried again."""
    REFUSED = "refused"
    """It must not be done now: the table's own check says so."""


@dataclass(frozen=True, slots=True)
class PartitionedTable:
    """A table whose partitions are kept.

    Attributes:
        schema: where it stands; None for the search path.
        name: unqualified.
        key: how its partition key carries time.
        lock_seconds: longest wait for a lock; below the server's `deadlock_timeout`, else somebody
            else's transaction may end for ours.
        statement_seconds: longest statement, e.g. the look through an old partition.
    """

    schema: str | None
    name: str
    key: PartitionKey
    lock_seconds: float = 0.2
    statement_seconds: float = 600

    @property
    def quoted(self) -> str:
        """The qualified name as SQL."""
        return qualified(self.schema, self.name)


OnMoved = Callable[[Connection, str, str], None]
"""Told schema and name of a new partition into which rows of the default one were moved."""

MayDrop = Callable[[Connection, Partition], bool]
"""Looks through a partition that nobody else can write any more; False leaves it alone."""

Save = Callable[[Connection, Partition], None]
"""Copies what must outlive a partition, once it is no part of its table any more.

What goes into the table then is committed together with the drop, or not at all.
"""


async def partitions(
    connection: AsyncConnection | AsyncEngine, table: PartitionedTable
) -> list[Partition]:
    """List the partitions of a table.

    Raises:
        ArgumentError: one is not of a range of one column that carries time.
    """
    if isinstance(connection, AsyncEngine):
        async with connection.begin() as opened:
            return await opened.run_sync(list_partitions, table)
    return await connection.run_sync(list_partitions, table)


async def make_ahead(
    engine: AsyncEngine,
    table: PartitionedTable,
    now: datetime,
    ahead: int,
    on_moved: OnMoved | None = None,
) -> dict[str, Outcome]:
    """Make the partitions of this month and the `ahead` next ones where they are missing.

    Rows that wait in the default partition for a missing range are moved into it, with every column
    as it was; writers wait for that moment. More than `MOST_MOVED_ROWS` of them stay where they
    are, which is as safe, and the partition begins the day after tomorrow. A range that lies
    wholly in the future is made without anybody noticing.

    Returns what became of each missing partition.
    """
    outcomes: dict[str, Outcome] = {}
    for span in missing(await partitions(engine, table), now, ahead):
        what = f"{table.name} from {span.start:%Y-%m-%d}"
        step = partial(_make, table=table, span=span, now=now, on_moved=on_moved)
        try:
            async with _fresh(engine) as connection, connection.begin():
                locked = await connection.run_sync(try_lock, table)
                outcome = await connection.run_sync(step) if locked else Outcome.BUSY
        except DBAPIError as error:
            outcome = _put_off(error, what)
        outcomes[what] = outcome
    return outcomes


async def drop(
    engine: AsyncEngine,
    table: PartitionedTable,
    partition: Partition,
    may_drop: MayDrop,
    save: Save | None = None,
) -> Outcome:
    """Drop a range partition if `may_drop` says so, in one transaction.

    Writers of the partition are waited for and kept out before the look, and stay out until it is
    gone: nothing can be committed into it in between. The rest of the table is locked for the
    moment of the drop only.
    """
    if partition.span is None:
        raise ArgumentError("the default partition is never dropped")
    try:
        async with _fresh(engine) as connection, connection.begin() as transaction:
            if not await connection.run_sync(try_lock, table):
                return Outcome.BUSY
            if partition not in await partitions(connection, table):
                return Outcome.DONE
            if not await connection.run_sync(_look, partition, may_drop):
                outcome = Outcome.REFUSED
            else:
                outcome = await _drop_patiently(connection, table, partition, save)
            if outcome is not Outcome.DONE:
                await transaction.rollback()
            return outcome
    except DBAPIError as error:
        return _put_off(error, partition.name)


@asynccontextmanager
async def _fresh(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Connect so that each statement sees what was committed while the one before it waited.

    Under a stricter default isolation, a statement would not see what was written by the
    transactions that the lock before it waited for.
    """
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="READ COMMITTED")
        yield connection


async def _drop_patiently(
    connection: AsyncConnection, table: PartitionedTable, partition: Partition, save: Save | None
) -> Outcome:
    for attempt in count(1):
        # A transaction that waits for the partition may hold the table lock that the drop needs: a
        # deadlock, for which PostgreSQL would abort it. One that comes after this question waits
        # for less than `deadlock_timeout`, because we do.
        if await connection.scalar(_KEPT_OUT, {"oid": partition.oid}):
            break
        try:
            async with connection.begin_nested():
                await connection.run_sync(_detach_and_drop, table, partition, save)
        except DBAPIError as error:
            if not isinstance(error.orig, _LOCKED):
                raise
            if attempt == _ATTEMPTS:
                break
            # Let those go first that queued behind us.
            await asyncio.sleep(table.lock_seconds * attempt)
        else:
            return Outcome.DONE
    return Outcome.BUSY


def _put_off(error: DBAPIError, what: str) -> Outcome:
    """Leave a partition for later, so that it stops no other one; raise if the database is away."""
    # A deadlock with a writer is as ordinary as a lock that is not to be had.
    if isinstance(error.orig, _LOCKED):
        return Outcome.BUSY
    if error.connection_invalidated or getattr(error.orig, "sqlstate", None) is None:
        raise error
    _log.warning("partition %s could not be changed (%s)", what, type(error.orig).__name__)
    return Outcome.BUSY


def try_lock(connection: Connection, table: PartitionedTable) -> bool:
    """Take the table's advisory lock until the transaction ends; False if somebody else has it.

    Also sets the transaction's time limits.
    """
    limits = {
        "lock": f"{max(1, int(table.lock_seconds * 1000))}ms",
        "statement": f"{int(table.statement_seconds * 1000)}ms",
    }
    connection.execute(_LIMITS, limits)
    return bool(connection.scalar(_TRY_LOCK, {"what": f"partitions of {table.quoted}"}))


def list_partitions(connection: Connection, table: PartitionedTable) -> list[Partition]:
    """List the partitions of a table, on a connection in use; see `partitions`."""
    connection.execute(text("set local timezone = 'UTC'"))
    rows = connection.execute(_LIST, {"parent": table.quoted})
    return [
        Partition(row.oid, row.nspname, row.relname, parse_bounds(row.bounds, table.key))
        for row in rows
    ]


def _make(
    connection: Connection,
    table: PartitionedTable,
    span: Span,
    now: datetime,
    on_moved: OnMoved | None,
) -> Outcome:
    present = list_partitions(connection, table)
    if span not in missing(present, span.start, 0):
        # Somebody made it since we looked.
        return Outcome.DONE
    default = default_of(present)
    waiting = _count(connection, table, default, span) if default is not None else 0
    source = None
    if waiting > MOST_MOVED_ROWS:
        later = later_part(span, now)
        if later is None:
            return Outcome.REFUSED
        span = later
    elif waiting or span.start <= now:
        source = default
        # A writer whose row was routed to the default partition before the new one was there would
        # be refused: let those who write end first, and nobody begin.
        _run(connection, f"lock table only {table.quoted} in share row exclusive mode")
    schema, name = _create(connection, table, default, span)
    new = qualified(schema, name)
    moved = _move(connection, table, source, new, span) if source is not None else 0
    if moved and on_moved is not None:
        on_moved(connection, schema, name)
    _run(
        connection,
        f"alter table {table.quoted} attach partition {new}"
        f" for values from ('{table.key.literal(span.start)}')"
        f" to ('{table.key.literal(span.end)}')",
    )
    return Outcome.DONE


def _create(
    connection: Connection, table: PartitionedTable, default: Partition | None, span: Span
) -> tuple[str, str]:
    """Create a table for `span` that is no partition yet; returns its schema and name."""
    name = free_name(table.name, span, connection.scalars(_NAMES, {"parent": table.quoted}))
    schema = str(connection.scalar(_SCHEMA, {"parent": table.quoted}))
    options = connection.scalar(_OPTIONS, {"oid": default.oid if default is not None else 0})
    storage = f" WITH ({options})" if options else ""
    # Attached afterwards, it does not lock the table; `create table ... partition of` would.
    _run(
        connection,
        f"create table {qualified(schema, name)} (like {table.quoted} including defaults"
        f" including constraints including indexes including storage){storage}",
    )
    return schema, name


def _count(connection: Connection, table: PartitionedTable, default: Partition, span: Span) -> int:
    where = _within(table, span)
    found = connection.scalar(
        text(
            f"select count(*) from (select from {qualified(default.schema, default.name)}"  # noqa: S608 - names of the catalog, bounds of ours
            f" where {where} limit {MOST_MOVED_ROWS + 1}) waiting"
        )
    )
    return int(found or 0)


def _move(
    connection: Connection, table: PartitionedTable, default: Partition, new: str, span: Span
) -> int:
    old = qualified(default.schema, default.name)
    columns = connection.scalar(_COLUMNS, {"parent": table.quoted})
    _run(connection, f"lock table {old} in access exclusive mode")
    return connection.exec_driver_sql(
        f"with moved as (delete from {old} where {_within(table, span)} returning {columns})"  # noqa: S608 - likewise
        f" insert into {new} ({columns}) select {columns} from moved"
    ).rowcount


def _look(connection: Connection, partition: Partition, may_drop: MayDrop) -> bool:
    name = qualified(partition.schema, partition.name)
    _run(connection, f"lock table {name} in share mode")
    return may_drop(connection, partition)


def _detach_and_drop(
    connection: Connection, table: PartitionedTable, partition: Partition, save: Save | None
) -> None:
    name = qualified(partition.schema, partition.name)
    _run(connection, f"alter table {table.quoted} detach partition {name}")
    if save is not None:
        save(connection, partition)
    _run(connection, f"drop table {name}")


def _within(table: PartitionedTable, span: Span) -> str:
    column, literal = table.key.column, table.key.literal
    return f"{column} >= '{literal(span.start)}' and {column} < '{literal(span.end)}'"


def _run(connection: Connection, statement: str) -> None:
    connection.exec_driver_sql(statement)
