"""Removing refused rows for good: of an age, approved by somebody, and written down.

`outbox_purged` keeps who approved it, when, and which events; no key and no payload. A key that was
held back goes on after it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from uuid import UUID

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox.errors import ApprovalError
from lethe_outbox.rewinding import rewind
from lethe_outbox.schema import DEFAULT_SCHEMA, OutboxTables, Status, tables_in

AT_ONCE: Final = 500
"""Rows that one transaction removes."""


@dataclass(frozen=True, slots=True)
class Approval:
    """Who answers for a removal, and of what age a row must be.

    Attributes:
        older_than: since the row was refused.
        approved_by: a name; kept for good.

    Raises:
        ApprovalError: no name, or an age that is not positive.
    """

    older_than: timedelta
    approved_by: str

    def __post_init__(self) -> None:
        if not self.approved_by.strip():
            raise ApprovalError("somebody has to approve it, by name")
        if self.older_than <= timedelta():
            raise ApprovalError("the age must be positive")


async def purgeable(
    engine: AsyncEngine, older_than: timedelta, schema: str | None = DEFAULT_SCHEMA
) -> int:
    """Count the refused rows that were refused longer ago than that."""
    tables = tables_in(schema)
    query = select(func.count()).select_from(tables.dead).where(_old(tables, older_than))
    async with engine.connect() as connection:
        return (await connection.execute(query)).scalar_one()


async def purge(
    connection: AsyncConnection, approval: Approval, schema: str | None = DEFAULT_SCHEMA
) -> list[UUID]:
    """Remove up to `AT_ONCE` refused rows of that age, in the caller's transaction.

    Gives their event ids; an empty list means that there are no more. What waited behind them is
    published next.
    """
    return await connection.run_sync(_purge, tables_in(schema), approval)


def _old(tables: OutboxTables, older_than: timedelta) -> ColumnElement[bool]:
    return tables.dead.c.died_at < func.now() - older_than


def _purge(connection: Connection, tables: OutboxTables, approval: Approval) -> list[UUID]:
    outbox, dead = tables.outbox, tables.dead
    rows = connection.execute(
        select(dead)
        .where(_old(tables, approval.older_than))
        .order_by(dead.c.bucket, dead.c.id)
        .limit(AT_ONCE)
        .with_for_update()
    ).all()
    if not rows:
        return []
    connection.execute(
        insert(tables.purged),
        [
            {
                "row_id": row.id,
                "event_id": row.event_id,
                "topic": row.topic,
                "status": row.status,
                "reason": row.reason,
                "died_at": row.died_at,
                "older_than_seconds": int(approval.older_than.total_seconds()),
                "approved_by": approval.approved_by.strip(),
            }
            for row in rows
        ],
    )
    refused = [int(Status.DEAD_LETTERED), int(Status.DLT_FAILED)]
    these = or_(*(and_(outbox.c.bucket == row.bucket, outbox.c.id == row.id) for row in rows))
    connection.execute(delete(outbox).where(these, outbox.c.status.in_(refused)))
    connection.execute(delete(dead).where(dead.c.id.in_([row.id for row in rows])))
    rewind(connection, tables, ((row.bucket, row.id) for row in rows if row.held))
    return [row.event_id for row in rows]
