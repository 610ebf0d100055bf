"""Looking at an outbox and bringing refused rows back, from a command or a program."""

from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Connection,
    Row,
    Select,
    bindparam,
    case,
    cast,
    func,
    lateral,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import OID, REGCLASS
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox.errors import ReorderError, RowGoneError
from lethe_outbox.message import BUCKETS
from lethe_outbox.names import qualified
from lethe_outbox.partitions.monthly import BY_TIME, spans_of
from lethe_outbox.partitions.storage import PartitionedTable, list_partitions
from lethe_outbox.plans import guard
from lethe_outbox.rewinding import rewind
from lethe_outbox.schema import DEFAULT_SCHEMA, OutboxTables, Status, tables_in

MOST_PENDING_PER_BUCKET: Final = 200
"""Pending rows are counted up to this many per bucket, so that looking stays cheap."""
_BUCKETS_AT_ONCE: Final = 8
"""Buckets that one statement reads. While a statement runs, row versions that died since are not
pruned, and acknowledgements soon find no room left on their pages."""


@dataclass(frozen=True, slots=True)
class OutboxStatus:
    """How an outbox stands.

    Attributes:
        pending: rows that wait. Counted up to `MOST_PENDING_PER_BUCKET` in each bucket; of a bucket
            that holds more, estimated from how densely the counted ids lie.
        dead_lettered: rows that were refused and are in their dead-letter topic.
        dlt_failed: rows that were refused by their dead-letter topic too.
        oldest_pending: when the oldest waiting row was written; None if none waits.
        taken_at: the database's time of this answer.
        relays: relays that live.
        owned_buckets: buckets with an unexpired lease.
    """

    pending: int
    dead_lettered: int
    dlt_failed: int
    oldest_pending: datetime | None
    taken_at: datetime
    relays: int
    owned_buckets: int

    @property
    def oldest_pending_seconds(self) -> float:
        """How long the oldest waiting row has waited; 0 if none waits."""
        if self.oldest_pending is None:
            return 0.0
        return max(0.0, (self.taken_at - self.oldest_pending).total_seconds())


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that was refused and that nobody has dealt with.

    Attributes:
        id: of the row; what `requeue` takes.
        event_id: what its record carries.
        topic: where it should have gone.
        status: DEAD_LETTERED or DLT_FAILED.
        reason: a short code.
        held: whether later rows of its key wait for it.
        died_at: when it was refused.
    """

    id: int
    event_id: UUID
    topic: str
    status: Status
    reason: str
    held: bool
    died_at: datetime


@dataclass(frozen=True, slots=True)
class NotRequeued:
    """Named rows that `requeue` leaves as they are.

    Attributes:
        not_refused: rows that wait or were sent.
        not_there: ids of no row (any more).
    """

    not_refused: tuple[int, ...] = ()
    not_there: tuple[int, ...] = ()


async def status(engine: AsyncEngine, schema: str | None = DEFAULT_SCHEMA) -> OutboxStatus:
    """Say how the outbox stands; its buckets are read a few at a time, not at one moment."""
    tables = tables_in(schema)
    async with engine.connect() as connection:
        # Otherwise the first statement's view would be kept to the end.
        await connection.execution_options(isolation_level="READ COMMITTED")
        return await connection.run_sync(_status, tables)


async def refused(
    engine: AsyncEngine, schema: str | None = DEFAULT_SCHEMA, *, most: int = 100
) -> list[RefusedRow]:
    """List the rows that were refused, the oldest first."""
    dead = tables_in(schema).dead
    async with engine.connect() as connection:
        columns = (dead.c[each.name] for each in fields(RefusedRow))
        rows = await connection.execute(select(*columns).order_by(dead.c.id).limit(most))
        return [RefusedRow(**{**row, "status": Status(row["status"])}) for row in rows.mappings()]


async def count_failed(engine: AsyncEngine, schema: str | None = DEFAULT_SCHEMA) -> int:
    """Count the rows that their dead-letter topic refused too."""
    dead = tables_in(schema).dead
    query = select(func.count()).where(dead.c.status == int(Status.DLT_FAILED))
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one()


async def failed_pages(
    engine: AsyncEngine, schema: str | None = DEFAULT_SCHEMA, *, at_once: int = 500
) -> AsyncIterator[list[int]]:
    """Give the ids of every DLT_FAILED row in order, page by page; nothing is held in between.

    It ends at what is the last one now, so a row that is refused again and again is met once.
    """
    dead = tables_in(schema).dead
    failed = dead.c.status == int(Status.DLT_FAILED)
    async with engine.connect() as connection:
        last = (await connection.execute(select(func.max(dead.c.id)).where(failed))).scalar_one()
    if last is None:
        return
    page = select(dead.c.id).where(failed, dead.c.id <= last).order_by(dead.c.id).limit(at_once)
    after = 0
    while True:
        async with engine.connect() as connection:
            ids = list((await connection.execute(page.where(dead.c.id > after))).scalars())
        if not ids:
            return
        yield ids
        after = ids[-1]


async def not_to_requeue(
    connection: AsyncConnection, ids: Collection[int], schema: str | None = DEFAULT_SCHEMA
) -> NotRequeued:
    """Say which of `ids` `requeue` leaves, if it comes next in the caller's transaction."""
    tables = tables_in(schema)
    outbox, dead = tables.outbox, tables.dead
    # Locked, in `requeue`'s order: nobody else brings them back in between.
    refused_rows = await connection.execute(
        select(dead.c.id)
        .where(dead.c.id.in_(ids))
        .order_by(dead.c.bucket, dead.c.id)
        .with_for_update()
    )
    left = set(ids) - set(refused_rows.scalars())
    if not left:
        return NotRequeued()
    rows = await connection.execute(select(outbox.c.id).where(outbox.c.id.in_(left)))
    there = set(rows.scalars())
    return NotRequeued(tuple(sorted(there)), tuple(sorted(left - there)))


async def requeue(
    connection: AsyncConnection,
    ids: Collection[int] | None = None,
    *,
    accept_reorder: bool = False,
    schema: str | None = DEFAULT_SCHEMA,
) -> int:
    """Make refused rows pending again, in the caller's transaction; gives how many.

    Args:
        connection: in a transaction that the caller commits.
        ids: rows to bring back, dead-lettered ones too; None for every DLT_FAILED row. Ids that are
            not refused rows are ignored; `not_to_requeue` says which.
        accept_reorder: bring back rows although later events of their key were, or may just be,
            published before them.
        schema: of the outbox.

    Raises:
        ReorderError: there are such later events, or may have been in a partition that was dropped,
            and that was not accepted; nothing is changed.
        RowGoneError: a row is not in the outbox any more; nothing is changed.
    """
    return await connection.run_sync(_requeue, tables_in(schema), ids, accept_reorder)


def _status(connection: Connection, tables: OutboxTables) -> OutboxStatus:
    guard(connection)
    pending, oldest = _waiting(connection, tables)
    dead = tables.dead
    counts: dict[int, int] = {
        int(row[0]): int(row[1])
        for row in connection.execute(select(dead.c.status, func.count()).group_by(dead.c.status))
    }
    relay, bucket = tables.relay, tables.bucket
    alive = relay.c.alive_until > func.now()
    leased = bucket.c.lease_until > func.now()
    return OutboxStatus(
        pending=pending,
        dead_lettered=counts.get(Status.DEAD_LETTERED, 0),
        dlt_failed=counts.get(Status.DLT_FAILED, 0),
        oldest_pending=oldest,
        taken_at=connection.execute(select(func.now())).scalar_one(),
        relays=connection.scalar(select(func.count()).select_from(relay).where(alive)) or 0,
        owned_buckets=connection.scalar(select(func.count()).select_from(bucket).where(leased))
        or 0,
    )


def _waiting(connection: Connection, tables: OutboxTables) -> tuple[int, datetime | None]:
    """Give how many rows wait, and when the oldest was written, a few buckets per statement."""
    pending, oldest = 0, []
    query = _pending(tables)
    for first in range(0, BUCKETS, _BUCKETS_AT_ONCE):
        buckets = {"first": first, "last": first + _BUCKETS_AT_ONCE - 1}
        rows, written = connection.execute(query, buckets).one()
        pending += int(rows or 0)
        if written is not None:
            oldest.append(written)
    return pending, min(oldest, default=None)


def _pending(tables: OutboxTables) -> Select[Any, Any]:
    outbox, bucket = tables.outbox, tables.bucket
    waiting = (
        select(outbox.c.id, outbox.c.created_at)
        .where(
            outbox.c.bucket == bucket.c.bucket,
            outbox.c.id > bucket.c.low_water,
            outbox.c.status == int(Status.PENDING),
        )
        .order_by(outbox.c.id)
        .limit(MOST_PENDING_PER_BUCKET)
        .correlate(bucket)
        .subquery()
    )
    first, last = func.min(waiting.c.id), func.max(waiting.c.id)
    each = lateral(
        select(
            func.count().label("rows"),
            func.min(waiting.c.created_at).label("oldest"),
            first.label("first"),
            func.greatest(last - first, 1).label("span"),
        )
    )
    sequence = func.pg_get_serial_sequence(qualified(tables.schema, "outbox"), "id")
    last_id = select(
        func.pg_sequence_last_value(cast(cast(sequence, REGCLASS), OID))
    ).scalar_subquery()
    rest = each.c.rows * (last_id - each.c.first) / each.c.span
    rows = case((each.c.rows < MOST_PENDING_PER_BUCKET, each.c.rows), else_=rest)
    return (
        select(func.sum(rows), func.min(each.c.oldest))
        .select_from(bucket.join(each, true()))
        .where(bucket.c.bucket.between(bindparam("first"), bindparam("last")))
    )


def _requeue(
    connection: Connection,
    tables: OutboxTables,
    ids: Collection[int] | None,
    accept_reorder: bool,  # noqa: FBT001 - run_sync passes by position
) -> int:
    dead, outbox = tables.dead, tables.outbox
    chosen = dead.c.id.in_(ids) if ids is not None else dead.c.status == int(Status.DLT_FAILED)
    rows = connection.execute(
        select(dead).where(chosen).order_by(dead.c.bucket, dead.c.id).with_for_update()
    ).all()
    if not accept_reorder:
        late = [row.id for row in rows if not row.held and _has_later(connection, tables, row)]
        if late:
            raise ReorderError(
                f"{len(late)} of the rows have later events of their key that were or may be "
                "published; accept_reorder (--accept-reorder) brings them back behind those"
            )
    for row in rows:
        done = connection.execute(
            update(outbox)
            .where(outbox.c.bucket == row.bucket, outbox.c.id == row.id)
            .values(status=int(Status.PENDING), last_error=None)
        )
        if not done.rowcount:
            raise RowGoneError(
                f"row {row.id} is not in the outbox any more: it cannot be brought back, and what "
                "was asked for with it was left as it is"
            )
    connection.execute(dead.delete().where(dead.c.id.in_([row.id for row in rows])))
    rewind(connection, tables, ((row.bucket, row.id) for row in rows))
    return len(rows)


def _has_later(connection: Connection, tables: OutboxTables, row: Row[Any]) -> bool:
    outbox = tables.outbox
    found = connection.scalar(
        select(outbox.c.id)
        .where(
            outbox.c.bucket == row.bucket,
            outbox.c.id > row.id,
            outbox.c.key == row.key,
            outbox.c.topic == row.topic,
        )
        .limit(1)
    )
    return found is not None or _partition_is_gone(connection, tables, row)


def _partition_is_gone(connection: Connection, tables: OutboxTables, row: Row[Any]) -> bool:
    """Say whether the partition in which later events of the key may have been was dropped."""
    table = PartitionedTable(tables.schema, "outbox", BY_TIME)
    spans = spans_of(list_partitions(connection, table))
    return bool(spans) and row.created_at < spans[0].start
