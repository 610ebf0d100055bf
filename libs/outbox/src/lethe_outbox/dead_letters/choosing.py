"""Filtering dead letters by content, state and time."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, Table, and_, func, select, true
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_outbox.dead_letters.reader import State
from lethe_outbox.schema import DEFAULT_SCHEMA, tables_in


@dataclass(frozen=True, slots=True)
class Which:
    """A filter of dead letters; None matches everything."""

    ids: Collection[int] | None = None
    state: State | None = None
    topic: str | None = None
    """The dead-letter topic."""
    key: bytes | None = None
    event_id: UUID | None = None
    reason: str | None = None
    refused_by: str | None = None
    since: datetime | None = None
    """Recorded at or after."""
    until: datetime | None = None
    """Recorded before."""

    def condition(self, table: Table) -> ColumnElement[bool]:
        """Return it as a condition on `OutboxTables.dead_letter`."""
        c = table.c
        found = [
            column == value
            for column, value in (
                (c.state, self.state),
                (c.topic, self.topic),
                (c.key, self.key),
                (c.event_id, self.event_id),
                (c.reason, self.reason),
                (c.refused_by, self.refused_by),
            )
            if value is not None
        ]
        if self.ids is not None:
            found.append(c.id == func.any(list(self.ids)))
        if self.since is not None:
            found.append(c.recorded_at >= self.since)
        if self.until is not None:
            found.append(c.recorded_at < self.until)
        return and_(true(), *found)


async def find(
    connection: AsyncConnection, which: Which, *, schema: str | None = DEFAULT_SCHEMA
) -> list[int]:
    """List the ids of dead letters in the order in which they were recorded."""
    table = tables_in(schema).dead_letter
    query = select(table.c.id).where(which.condition(table)).order_by(table.c.id)
    return list((await connection.execute(query)).scalars())
