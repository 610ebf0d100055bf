"""The inbox: a consumer's transaction notes the events it handles, so each takes effect once.

The table is the truth. A fast path may stand in front of it: what it knows was committed before it
was told, so its yes is final and its no means nothing. Every failure of it counts as a no.
"""

from collections.abc import Collection, Sequence
from typing import Protocol
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from lethe_outbox.consumer.intact import has_written
from lethe_outbox.errors import AutocommitError
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
        # It returns one row, without ids while all were new, as they nearly always are: reading 500
        # ids costs as much as inserting them. Sent as text, ids suit every driver.
        self._insert = text(
            f"WITH noted AS (INSERT INTO {table} (event_id, consumer) "  # noqa: S608 - a quoted name
            "SELECT unnest(CAST(CAST(:event_ids AS text) AS uuid[])), :consumer "
            "ON CONFLICT DO NOTHING RETURNING event_id) "
            "SELECT CASE WHEN count(*) < :wanted THEN coalesce(array_agg(event_id), '{}') END "
            "FROM noted"
        )

    async def handled(
        self, connection: AsyncConnection, event_ids: Collection[UUID], consumer: str
    ) -> set[UUID]:
        """Note `event_ids` as handled by `consumer` and return those that were not before.

        It waits for a concurrent transaction that notes one of them. The ids are noted in
        ascending order, so two batches cannot deadlock here.

        Raises:
            AutocommitError: what is noted would stay although the work it belongs to fails.
        """
        if not event_ids:
            return set()
        # The driver's own word, as in `Outbox.append`.
        if getattr((await connection.get_raw_connection()).dbapi_connection, "autocommit", False):
            raise AutocommitError("an inbox needs an engine that is not in AUTOCOMMIT")
        numbers = sorted({event_id.int for event_id in event_ids})
        values = {
            "event_ids": "{" + ",".join([f"{number:032x}" for number in numbers]) + "}",
            "consumer": consumer,
            "wanted": len(numbers),
        }
        found = (await connection.execute(self._insert, values)).scalar_one()
        return set(event_ids if found is None else found)

    async def still_noted(self, connection: AsyncConnection) -> bool:
        """Say whether the transaction that `handled` wrote in is still the one of `connection`.

        Raises:
            DBAPIError: a statement in it failed, so it can only be rolled back.
            InvalidRequestError: it was ended.
        """
        return await has_written(connection)
