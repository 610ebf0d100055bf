"""Looking at single rows of an outbox: which there are, and what one of them carries.

Nothing here gives a payload unless it is asked for it, and no list gives a key: a key may name
somebody.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from functools import partial
from operator import attrgetter
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    exists,
    false,
    func,
    null,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox.message import bucket_of, unpack_headers
from lethe_outbox.plans import guard
from lethe_outbox.schema import DEFAULT_SCHEMA, OutboxTables, Status, tables_in

UNSENT: Final = frozenset({Status.PENDING, Status.DEAD_LETTERED, Status.DLT_FAILED})
_id: Final = attrgetter("id")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A filter of rows; None matches everything.

    Attributes:
        statuses: in one of these.
        topic: for this topic.
        key: of this key.
        older_than: written longer ago.
        newer_than: written since.
        most: so many at most: the oldest of those that are not sent, and in the room they leave the
            newest of sent ones.
    """

    statuses: Collection[Status] = UNSENT
    topic: str | None = None
    key: str | None = None
    older_than: timedelta | None = None
    newer_than: timedelta | None = None
    most: int = 100


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A row, without what it carries.

    Attributes:
        id: of the row.
        event_id: what its record carries.
        topic: where it goes.
        status: where it stands.
        bytes: of its payload.
        created_at: when it was written.
        sent_at: when Kafka had it, if it has.
        attempts: how often it was refused.
        reason: why it was refused, a short code.
        held: of a refused row, whether its key waits for it; of a pending one, whether it waits.
    """

    id: int
    event_id: UUID
    topic: str
    status: Status
    bytes: int
    created_at: datetime
    sent_at: datetime | None
    attempts: int
    reason: str | None
    held: bool


@dataclass(frozen=True, slots=True)
class WholeRow:
    """A row with everything it carries.

    Attributes:
        row: see there.
        key: of the record.
        bucket: of the key.
        dlt_attempts: how often its dead-letter topic refused it.
        died_at: when it was refused, if it was and nobody has dealt with it.
        headers: of the record; None if the stored value is not readable as headers.
        payload: of the record; None unless it was asked for.
    """

    row: OutboxRow
    key: str
    bucket: int
    dlt_attempts: int
    died_at: datetime | None
    headers: list[tuple[str, bytes]] | None
    payload: bytes | None


async def rows(
    engine: AsyncEngine, wanted: Wanted, schema: str | None = DEFAULT_SCHEMA
) -> list[OutboxRow]:
    """List rows by id."""
    async with engine.connect() as connection:
        # A row whose status changes meanwhile would be missed, or listed twice.
        await connection.execution_options(isolation_level="REPEATABLE READ")
        return await connection.run_sync(_rows, tables_in(schema), wanted)


async def row(
    engine: AsyncEngine,
    identity: int | UUID,
    schema: str | None = DEFAULT_SCHEMA,
    *,
    payload: bool = False,
) -> WholeRow | None:
    """Return the row of an id or an event id; None if there is none (any more).

    Event ids are not indexed: unless the row was refused, all rows before it are read.
    """
    async with engine.connect() as connection:
        return await connection.run_sync(_row, tables_in(schema), identity, payload)


def _rows(connection: Connection, tables: OutboxTables, wanted: Wanted) -> list[OutboxRow]:
    guard(connection)
    found: list[OutboxRow] = []
    for status in set(wanted.statuses) - {Status.SENT}:
        query = _pending if status is Status.PENDING else partial(_refused, status=status)
        found += _listed(connection, query(tables, wanted))
    found = sorted(found, key=_id)[: wanted.most]
    room = wanted.most - len(found)
    if Status.SENT in wanted.statuses and room:
        found += _listed(connection, _sent(tables, wanted).limit(room))
    return sorted(found, key=_id)


def _listed(connection: Connection, query: Select[Any]) -> Iterator[OutboxRow]:
    return map(_outbox_row, connection.execute(query).mappings())


def _refused(tables: OutboxTables, wanted: Wanted, status: Status) -> Select[Any]:
    outbox, dead = tables.outbox, tables.dead
    return (
        _columns(tables, dead.c.created_at, dead.c.held)
        .join(dead, (dead.c.bucket == outbox.c.bucket) & (dead.c.id == outbox.c.id))
        .where(outbox.c.status == int(status), *_conditions(tables, wanted, dead.c.created_at))
        .order_by(outbox.c.id)
        .limit(wanted.most)
    )


def _pending(tables: OutboxTables, wanted: Wanted) -> Select[Any]:
    outbox, bucket = tables.outbox, tables.bucket
    # Everything that waits is above its bucket's low-water mark.
    each = (
        _columns(tables, outbox.c.created_at, _waits(tables))
        .where(
            outbox.c.status == int(Status.PENDING),
            outbox.c.bucket == bucket.c.bucket,
            outbox.c.id > bucket.c.low_water,
            *_conditions(tables, wanted, outbox.c.created_at),
        )
        .order_by(outbox.c.id)
        .limit(wanted.most)
        .correlate(bucket)
        .lateral()
    )
    everywhere = select(*each.c).select_from(bucket.join(each, true()))
    return everywhere.order_by(each.c.id).limit(wanted.most)


def _waits(tables: OutboxTables) -> ColumnElement[bool]:
    """Say whether a pending row waits behind a dead one of its key."""
    outbox, dead = tables.outbox, tables.dead.alias()
    return exists().where(
        outbox.c.status == int(Status.PENDING),
        dead.c.held,
        dead.c.bucket == outbox.c.bucket,
        dead.c.key == outbox.c.key,
        dead.c.topic == outbox.c.topic,
        dead.c.id < outbox.c.id,
    )


def _sent(tables: OutboxTables, wanted: Wanted) -> Select[Any]:
    outbox = tables.outbox
    return (
        _columns(tables, outbox.c.created_at, false())
        .where(
            outbox.c.status == int(Status.SENT),
            *_conditions(tables, wanted, outbox.c.created_at),
        )
        .order_by(outbox.c.id.desc())
    )


def _columns(
    tables: OutboxTables, created_at: ColumnElement[Any], held: ColumnElement[bool]
) -> Select[Any]:
    outbox = tables.outbox
    return select(
        outbox.c.id,
        outbox.c.event_id,
        outbox.c.topic,
        outbox.c.status,
        func.length(outbox.c.payload).label("bytes"),
        created_at.label("created_at"),
        outbox.c.sent_at,
        outbox.c.attempts,
        outbox.c.last_error.label("reason"),
        held.label("held"),
    )


def _conditions(
    tables: OutboxTables, wanted: Wanted, created_at: ColumnElement[Any]
) -> Iterator[ColumnElement[bool]]:
    outbox = tables.outbox
    if wanted.topic is not None:
        yield outbox.c.topic == wanted.topic
    if wanted.key is not None:
        yield outbox.c.bucket == bucket_of(wanted.key)
        yield outbox.c.key == wanted.key
    if wanted.older_than is not None:
        yield created_at <= func.now() - wanted.older_than
    if wanted.newer_than is not None:
        yield created_at >= func.now() - wanted.newer_than


def _row(
    connection: Connection,
    tables: OutboxTables,
    identity: int | UUID,
    payload: bool,  # noqa: FBT001 - run_sync passes by position
) -> WholeRow | None:
    outbox, dead = tables.outbox, tables.dead
    chosen = outbox.c.id == identity
    if isinstance(identity, UUID):
        number = connection.scalar(select(dead.c.id).where(dead.c.event_id == identity))
        chosen = outbox.c.event_id == identity if number is None else outbox.c.id == number
    created_at = func.coalesce(dead.c.created_at, outbox.c.created_at)
    query = (
        _columns(tables, created_at, func.coalesce(dead.c.held, _waits(tables)))
        .add_columns(
            *(outbox.c.key, outbox.c.bucket, outbox.c.dlt_attempts, outbox.c.headers),
            *(dead.c.died_at, (outbox.c.payload if payload else null()).label("payload")),
        )
        .outerjoin(dead, (dead.c.bucket == outbox.c.bucket) & (dead.c.id == outbox.c.id))
        .where(chosen)
    )
    found = connection.execute(query.order_by(outbox.c.id).limit(1)).mappings().first()
    if found is None:
        return None
    return WholeRow(
        row=_outbox_row(found),
        key=found["key"],
        bucket=found["bucket"],
        dlt_attempts=found["dlt_attempts"],
        died_at=found["died_at"],
        headers=_headers(found["headers"]),
        payload=found["payload"],
    )


def _headers(packed: bytes) -> list[tuple[str, bytes]] | None:
    try:
        return unpack_headers(packed)
    except ValueError:
        return None


def _outbox_row(found: RowMapping) -> OutboxRow:
    values = {each.name: found[each.name] for each in fields(OutboxRow)}
    return OutboxRow(**{**values, "status": Status(found["status"])})
