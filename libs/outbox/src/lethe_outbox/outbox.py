"""Appending to the outbox inside the caller's transaction.

The row is committed or rolled back with the caller's own writes; nothing here commits. Writers of
one key are serialised by an advisory lock that is held to the end of the transaction, so ids of a
key grow in commit order. Messages of one key lock it (and its bucket, shared); messages of several
keys lock their buckets, in ascending order.
"""

from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, MetaData, TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session

from lethe_outbox.message import Message, key_hash, pack_headers
from lethe_outbox.schema import DEFAULT_SCHEMA, OutboxTables

_KEY_LOCK_BIT: Final = 0x40000000
"""Keeps the locks of keys apart from those of buckets, which are 0 to 255."""


class Outbox(OutboxTables):
    """An outbox: its tables, and appending to it.

    Args:
        schema: where the tables live; None for the connection's search path.
        metadata: where they are registered; None for one of their own.
        key_lock: serialise writers of a key. Off, order per key holds only where the application
            already serialises them.
    """

    def __init__(
        self,
        schema: str | None = DEFAULT_SCHEMA,
        metadata: MetaData | None = None,
        *,
        key_lock: bool = True,
    ) -> None:
        super().__init__(schema, metadata)
        self._key_lock = key_lock
        table = f'"{schema}"."outbox"' if schema else '"outbox"'
        insert = f"INSERT INTO {table} (event_id, topic, key, bucket, payload, headers) "
        values = ":event_id, :topic, :key, :bucket, :payload, :headers"
        oid = f"'{table}'::regclass::oid::int4"
        self._insert: Final[TextClause] = text(f"{insert} VALUES ({values})")
        self._insert_locked: Final[TextClause] = text(
            # The lock's row is fetched before the id is drawn, in one round trip.
            "WITH locked AS MATERIALIZED (SELECT "  # noqa: S608 - names of ours only
            f"pg_advisory_xact_lock_shared({oid}, CAST(:bucket AS int)), "
            f"pg_advisory_xact_lock({oid}, CAST(:key_lock AS int))) "
            f"{insert} SELECT {values} FROM locked"
        )
        self._lock_buckets: Final[TextClause] = text(
            f"SELECT pg_advisory_xact_lock({oid}, bucket) FROM "  # noqa: S608 - likewise
            "unnest(CAST(:buckets AS int[])) WITH ORDINALITY AS b (bucket, place) ORDER BY place"
        )

    def append(self, connection: Connection | Session, *messages: Message) -> None:
        """Write `messages` in the transaction of `connection`, in their order; never commits."""
        for statement, parameters in self._statements(messages):
            connection.execute(statement, parameters)

    async def append_async(
        self, connection: AsyncConnection | AsyncSession, *messages: Message
    ) -> None:
        """Write `messages` in the transaction of `connection`, in their order; never commits."""
        for statement, parameters in self._statements(messages):
            await connection.execute(statement, parameters)

    def _statements(self, messages: Sequence[Message]) -> list[tuple[TextClause, Any]]:
        if not messages:
            return []
        rows = [_row(message) for message in messages]
        if not self._key_lock:
            return [(self._insert, rows)]
        if len({message.key for message in messages}) == 1:
            key_lock = key_hash(messages[0].key) | _KEY_LOCK_BIT
            return [(self._insert_locked, [row | {"key_lock": key_lock} for row in rows])]
        buckets = sorted({message.bucket for message in messages})
        return [(self._lock_buckets, {"buckets": buckets}), (self._insert, rows)]


def _row(message: Message) -> dict[str, object]:
    return {
        "event_id": message.event_id,
        "topic": message.topic,
        "key": message.key,
        "bucket": message.bucket,
        "payload": message.payload,
        "headers": pack_headers(message),
    }
