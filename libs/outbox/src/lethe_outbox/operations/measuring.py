"""The size of an outbox, its open writers, and the state of its partitions."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.names import qualified
from lethe_outbox.partitions.monthly import BY_TIME, Partition, default_of, older
from lethe_outbox.partitions.storage import PartitionedTable, list_partitions
from lethe_outbox.schema import DEFAULT_SCHEMA, JANITOR, OutboxTables, outbox_partition, tables_in

MOST_DEFAULT_ROWS: Final = 10_000
"""Rows of the default partition are counted up to this many, so that looking stays cheap."""

_SIZES: Final = text("""
select coalesce(sum(pg_total_relation_size(t.relid)), 0)::int8 as bytes,
    coalesce(sum(pg_stat_get_dead_tuples(t.relid)), 0)::int8 as dead,
    case when bool_or(c.reltuples < 0 and pg_stat_get_live_tuples(t.relid) = 0
        and pg_relation_size(t.relid) > 0) then null
    else sum(greatest(c.reltuples, pg_stat_get_live_tuples(t.relid)))::int8 end as live
from pg_partition_tree(cast(:outbox as regclass)) t
join pg_class c on c.oid = t.relid
where t.isleaf
""")
# RowExclusiveLock is what writers of the outbox hold to the end of their transaction. That of a
# prepared transaction has no pid; the lock on its own number tells which one it is.
_WRITERS: Final = text("""
select l.virtualtransaction as writer, min(coalesce(a.xact_start, p.prepared)) as since
from pg_locks l
left join pg_stat_activity a on a.pid = l.pid
left join pg_locks own on l.pid is null and own.pid is null and own.locktype = 'transactionid'
    and own.virtualtransaction = l.virtualtransaction
left join pg_prepared_xacts p on p.transaction = own.transactionid
where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.granted
    and l.database = (select oid from pg_database where datname = current_database())
    and l.relation in (select relid from pg_partition_tree(cast(:outbox as regclass)))
group by 1
""")


@dataclass(frozen=True, slots=True)
class Figures:
    """What an outbox amounts to.

    Attributes:
        taken_at: the database's time of these figures.
        size_bytes: all partitions with their indexes.
        rows: rows of every status, as the database's statistics estimate them; None if they say
            nothing.
        dead_tuples: row versions that vacuum has not removed yet, likewise estimated.
        default_rows: rows of the default partition younger than retention, for which no partition
            was made, counted up to `MOST_DEFAULT_ROWS`.
        overdue_partitions: partitions that ended longer ago than retention.
        janitor_at: when the janitor last completed a run; None if that was never noted.
        writers: who holds the outbox's write lock, and since when its transaction has been open;
            None where this role may not know.
    """

    taken_at: datetime
    size_bytes: int
    rows: int | None
    dead_tuples: int
    default_rows: int
    overdue_partitions: int
    janitor_at: datetime | None
    writers: Mapping[str, datetime | None]


async def figures(
    engine: AsyncEngine,
    schema: str | None = DEFAULT_SCHEMA,
    *,
    retention_seconds: float = 30 * 86_400,
) -> Figures:
    """Say how large the outbox is and how it is kept."""
    tables = tables_in(schema)
    async with engine.connect() as connection:
        return await connection.run_sync(_figures, tables, timedelta(seconds=retention_seconds))


def _figures(connection: Connection, tables: OutboxTables, retention: timedelta) -> Figures:
    outbox = {"outbox": qualified(tables.schema, "outbox")}
    now: datetime = connection.execute(select(func.now())).scalar_one()
    size = connection.execute(_SIZES, outbox).one()
    present = list_partitions(connection, PartitionedTable(tables.schema, "outbox", BY_TIME))
    default = default_of(present)
    done_at = select(tables.upkeep.c.done_at).where(tables.upkeep.c.task == JANITOR)
    return Figures(
        taken_at=now,
        size_bytes=size.bytes,
        rows=size.live,
        dead_tuples=size.dead,
        default_rows=0 if default is None else _count(connection, default, now - retention),
        overdue_partitions=len(older(present, now - retention)),
        janitor_at=connection.scalar(done_at),
        writers={row.writer: row.since for row in connection.execute(_WRITERS, outbox)},
    )


def _count(connection: Connection, default: Partition, since: datetime) -> int:
    rows = outbox_partition(default.schema, default.name)
    young = select(rows.c.id).where(rows.c.created_at > since).limit(MOST_DEFAULT_ROWS).subquery()
    return connection.scalar(select(func.count()).select_from(young)) or 0
