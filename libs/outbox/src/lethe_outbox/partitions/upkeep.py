"""Keeping the outbox small: partitions made ahead, and dropped when nobody needs them any more.

A partition is dropped when nothing in it is PENDING and its newest `sent_at` is past retention,
never before it ended that long ago. Refused rows that nobody has dealt with pin nothing: they move
to the default partition as they are. Each step is one transaction; killed anywhere it has been done
or it has not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    any_,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    text,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.errors import ArgumentError
from lethe_outbox.names import for_text, qualified, quoted
from lethe_outbox.partitions.monthly import BY_TIME, Partition, default_of, older
from lethe_outbox.partitions.storage import (
    Outcome,
    PartitionedTable,
    drop,
    make_ahead,
    partitions,
    try_lock,
)
from lethe_outbox.plans import guard, unguard
from lethe_outbox.ranges import wrong_number
from lethe_outbox.rewinding import rewind
from lethe_outbox.schema import (
    DEFAULT_SCHEMA,
    JANITOR,
    OutboxTables,
    Status,
    outbox_partition,
    tables_in,
)

SWEPT_AT_ONCE: Final = 5000
"""Old rows of the default partition that one transaction deletes."""


@dataclass(frozen=True, slots=True)
class UpkeepRules:
    """How an outbox is kept.

    Attributes:
        retention_seconds: how long sent rows stay at least.
        months_ahead: partitions made after the current month's.
        lock_seconds: longest wait for a lock on the table; business transactions that come
            meanwhile wait behind it.

    Raises:
        ArgumentError: a number makes no sense.
    """

    retention_seconds: float = 30 * 86_400
    months_ahead: int = 2
    lock_seconds: float = 0.2

    def __post_init__(self) -> None:
        wrong = wrong_number(self)
        if wrong is not None:
            raise ArgumentError(wrong)


@dataclass(frozen=True, slots=True)
class Kept:
    """What one run did.

    Attributes:
        made: what became of each missing partition.
        dropped: what became of each old one.
        swept: old rows deleted from the default partition.
    """

    made: Mapping[str, Outcome] = field(default_factory=dict)
    dropped: Mapping[str, Outcome] = field(default_factory=dict)
    swept: int = 0

    @property
    def complete(self) -> bool:
        """Whether nothing has to be tried again soon."""
        return Outcome.BUSY not in {*self.made.values(), *self.dropped.values()}


class Upkeep:
    """Keeps the partitions of one outbox.

    Args:
        engine: its role must own the outbox.
        schema: of the outbox.
        rules: see there.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        schema: str | None = DEFAULT_SCHEMA,
        rules: UpkeepRules | None = None,
    ) -> None:
        self._engine = engine
        self._rules = rules or UpkeepRules()
        self._tables = tables_in(schema)
        self._table = PartitionedTable(
            schema, "outbox", BY_TIME, lock_seconds=self._rules.lock_seconds
        )
        self._young: dict[int, datetime] = {}

    async def due(self, every_seconds: float) -> bool:
        """Say whether the last complete run, whoever made it, is that long ago."""
        done_at = self._tables.upkeep.c.done_at
        recent = select(done_at).where(
            self._tables.upkeep.c.task == JANITOR,
            done_at > func.now() - timedelta(seconds=every_seconds),
        )
        async with self._engine.connect() as connection:
            return (await connection.execute(recent)).first() is None

    async def run(self) -> Kept:
        """Do what is to be done now; somebody else may do the same at the same time.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database refused, or went away.
        """
        async with self._engine.connect() as connection:
            now: datetime = (await connection.execute(select(func.now()))).scalar_one()
        made = await make_ahead(
            self._engine, self._table, now, self._rules.months_ahead, partial(_rewind, self._tables)
        )
        limit = now - timedelta(seconds=self._rules.retention_seconds)
        dropped: dict[str, Outcome] = {}
        for partition in older(await partitions(self._engine, self._table), limit):
            dropped[partition.name] = await self._drop(partition, limit)
        kept = Kept(made, dropped, await self._sweep(limit))
        if kept.complete:
            await self._done()
        return kept

    async def _drop(self, partition: Partition, limit: datetime) -> Outcome:
        if self._young.get(partition.oid, limit) > limit:
            return Outcome.REFUSED
        may_drop, save = partial(self._may_drop, limit), partial(_save_the_dead, self._tables)
        return await drop(self._engine, self._table, partition, may_drop, save)

    def _may_drop(self, limit: datetime, connection: Connection, partition: Partition) -> bool:
        rows = outbox_partition(partition.schema, partition.name)
        guard(connection)
        if connection.scalar(_pending_above_marks(self._tables, rows)):
            return False
        unguard(connection)
        pending = func.count().filter(rows.c.status == int(Status.PENDING))
        waiting, newest = connection.execute(select(pending, func.max(rows.c.sent_at))).one()
        young = newest is not None and newest > limit
        if young:
            # This look may have taken long, and need not be repeated before that row is old.
            self._young[partition.oid] = newest
        return not young and not waiting

    async def _sweep(self, limit: datetime) -> int:
        """Delete sent rows past retention from the default partition, which is never dropped."""
        default = default_of(await partitions(self._engine, self._table))
        if default is None:
            return 0
        rows = outbox_partition(default.schema, default.name)
        place: ColumnElement[object] = literal_column("ctid")
        old = (
            select(place)
            .select_from(rows)
            .where(rows.c.status == int(Status.SENT), rows.c.sent_at <= limit)
            .limit(SWEPT_AT_ONCE)
        )
        total, swept = 0, SWEPT_AT_ONCE
        while swept == SWEPT_AT_ONCE:
            async with self._engine.begin() as connection:
                if not await connection.run_sync(try_lock, self._table):
                    break
                done = await connection.execute(
                    delete(rows).where(place == any_(func.array(old.scalar_subquery())))
                )
                swept = done.rowcount
            total += swept
        return total

    async def _done(self) -> None:
        table = self._tables.upkeep
        async with self._engine.begin() as connection:
            done = await connection.execute(
                update(table).where(table.c.task == JANITOR).values(done_at=func.now())
            )
            if not done.rowcount:
                await connection.execute(insert(table).values(task=JANITOR))


def _pending_above_marks(tables: OutboxTables, rows: Table) -> Select[tuple[bool]]:
    """Ask the index for a pending row, which is always above its bucket's low-water mark."""
    bucket = tables.bucket
    first = (
        select(rows.c.id)
        .where(
            rows.c.bucket == bucket.c.bucket,
            rows.c.id > bucket.c.low_water,
            rows.c.status == int(Status.PENDING),
        )
        .limit(1)
        .correlate(bucket)
        .lateral()
    )
    return select(exists(select(first.c.id).select_from(bucket.join(first, true()))))


def _save_the_dead(tables: OutboxTables, connection: Connection, partition: Partition) -> None:
    """Copy the refused rows of a partition that is detached, every column as it was."""
    names = ", ".join(quoted(column.name) for column in tables.outbox.c)
    outbox, dead, old = (
        for_text(qualified(schema, name))
        for schema, name in (
            (tables.schema, "outbox"),
            (tables.schema, "outbox_dead"),
            (partition.schema, partition.name),
        )
    )
    guard(connection)
    connection.execute(
        text(
            f"insert into {outbox} ({names}) overriding system value"  # noqa: S608 - names only, quoted
            # Everybody waits meanwhile: one look-up per refused row, and no plan of another kind.
            f" select r.* from {dead} d cross join lateral (select {names} from {old} o"
            f" where o.bucket = d.bucket and o.id = d.id and o.status in"
            f" ({int(Status.DEAD_LETTERED)}, {int(Status.DLT_FAILED)}) offset 0) r"
        )
    )


def _rewind(tables: OutboxTables, connection: Connection, schema: str, name: str) -> None:
    """Let the owners of moved pending rows read them where they are now."""
    rows = outbox_partition(schema, name)
    lowest = connection.execute(
        select(rows.c.bucket, func.min(rows.c.id))
        .where(rows.c.status == int(Status.PENDING))
        .group_by(rows.c.bucket)
    )
    rewind(connection, tables, lowest)
