"""Up to when everything that was appended is surely in Kafka, bucket by bucket."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import and_, exists, func, lateral, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_outbox.plans import guard_async
from lethe_outbox.schema import DEFAULT_SCHEMA, Status, tables_in


async def settled_until(
    connection: AsyncConnection, topic: str, *, schema: str | None = DEFAULT_SCHEMA
) -> Mapping[int, datetime]:
    """Say for each bucket up to when every row of `topic` that was committed is in Kafka.

    Left out is a bucket with a refused row of that topic that nobody has dealt with, and one whose
    first pending row is of the future, because the clock was set back since: when that row was
    committed, nobody knows. The times are the database's, at most that of this statement. What
    is appended afterwards, also in this transaction, is published behind all that, because a bucket
    is published in one partition and what is in Kafka already cannot be overtaken.

    The first pending row decides: its transaction began before any later id was drawn, so no
    pending row was committed before its time.

    Raises:
        SQLAlchemyError: the database's refusal.
    """
    tables = tables_in(schema)
    outbox, bucket, dead = tables.outbox, tables.bucket, tables.dead
    waiting = lateral(
        select(outbox.c.created_at)
        .where(
            outbox.c.bucket == bucket.c.bucket,
            outbox.c.id > bucket.c.low_water,
            outbox.c.status == Status.PENDING,
        )
        .order_by(outbox.c.id)
        .limit(1)
    )
    now = func.statement_timestamp()
    refused = exists().where(and_(dead.c.bucket == bucket.c.bucket, dead.c.topic == topic))
    found = (
        select(bucket.c.bucket, func.coalesce(waiting.c.created_at, now))
        .select_from(bucket.outerjoin(waiting, true()))
        .where(~refused, func.coalesce(waiting.c.created_at, now) <= now)
    )
    await guard_async(connection)
    rows = await connection.execute(found)
    return {row[0]: row[1] for row in rows}
