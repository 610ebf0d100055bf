"""Telling the owners of buckets to read again from further below."""

from collections.abc import Iterable

from sqlalchemy import Connection, bindparam, func, update

from lethe_outbox.schema import OutboxTables


def rewind(connection: Connection, tables: OutboxTables, rows: Iterable[tuple[int, int]]) -> None:
    """Lower low-water marks, in the caller's transaction.

    Args:
        connection: in a transaction.
        tables: of the outbox.
        rows: bucket and id of each row that must be read again.
    """
    lowest: dict[int, int] = {}
    for number, row_id in rows:
        lowest[number] = min(row_id, lowest.get(number, row_id))
    bucket = tables.bucket
    statement = (
        update(bucket)
        .where(bucket.c.bucket == bindparam("number"))
        .values(
            low_water=func.least(bucket.c.low_water, bindparam("lowest") - 1),
            rewinds=bucket.c.rewinds + 1,
        )
    )
    # In ascending order, so that two who do this never wait for each other.
    for number in sorted(lowest):
        connection.execute(statement, {"number": number, "lowest": lowest[number]})
