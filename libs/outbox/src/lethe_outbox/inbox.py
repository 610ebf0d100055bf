"""The inbox: a consumer's transaction notes the events it handles, so each takes effect once.

The table is the truth. A fast path may stand in front of it: what it knows was committed before it
was told, so its yes is final and its no means nothing. Every failure of it counts as a no.
"""

from collections.abc import Collection, Sequence
from typing import Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_outbox.names import for_text, qualified
from lethe_outbox.schema import DEFAULT_SCHEMA


class FastPath(Protocol):
    """Remembers handled events outside the database; may forget, must never invent."""

    async def known(self, consumer: str, event_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Return those of `event_ids` that are known to be handled; never raises for being away."""
        ...

    async def mark(self, consumer: str, event_ids: Collection[UUID]) -> None:
        """Remember what a committed transaction handled; never raises for being away."""
        ...


class Inbox:
    """The inbox table of `schema`.

    Args:
        schema: where the table lives.
        fast_path: asked before the table and told after the commit; None for the table alone.
    """

    def __init__(
        self, schema: str | None = DEFAULT_SCHEMA, *, fast_path: FastPath | None = None
    ) -> None:
        self.fast_path = fast_path
        table = for_text(qualified(schema, "inbox"))
        self._insert = text(
            f"INSERT INTO {table} (event_id, consumer) "
            "SELECT unnest(CAST(:event_ids AS uuid[])), :consumer "
            "ON CONFLICT DO NOTHING RETURNING event_id"
        )

    async def handled(
        self, connection: AsyncConnection, event_ids: Collection[UUID], consumer: str
    ) -> set[UUID]:
        """Note `event_ids` as handled by `consumer` and return those that were not before.

        It waits for a concurrent transaction that notes one of them. The ids are noted in
        ascending order, so two batches cannot deadlock here.
        """
        if not event_ids:
            return set()
        found = await connection.execute(
            self._insert, {"event_ids": sorted(set(event_ids)), "consumer": consumer}
        )
        return set(found.scalars())
