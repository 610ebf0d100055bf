"""Reading the dead letters that the library's reader recorded; never their payload."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.topics import TOPICS, dead_letter_topic
from lethe_outbox import OutboxTables, Which
from lethe_outbox.dead_letters.choosing import find
from lethe_outbox.dead_letters.deciding import Decision, close_published, decisions
from lethe_outbox.dead_letters.reader import OPEN, State, origin_row, unpack_any_headers
from lethe_runtime.database import SCHEMA

DEAD_LETTER_TOPICS: Final = tuple(dead_letter_topic(topic) for topic in TOPICS)

_TABLE: Final = OutboxTables(SCHEMA).dead_letter


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead letter as it is recorded, without headers and payload."""

    id: int
    topic: str
    partition: int
    offset: int
    key: bytes | None
    event_id: UUID | None
    reason: str
    error_class: str | None
    refused_by: str | None
    attempts: int | None
    origin_topic: str | None
    origin_partition: int | None
    origin_offset: int | None
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    recorded_at: datetime
    state: State
    state_changed_at: datetime | None


_SELECT: Final = select(*(_TABLE.c[each.name] for each in fields(DeadLetter)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """A page of dead letters, the newest first."""

    which: Which
    limit: int
    before: int | None = None
    """Only with a smaller id; None begins at the newest."""


@dataclass(frozen=True, slots=True)
class OpenLetters:
    """How many dead letters wait for a decision, by topic, and how long the oldest has."""

    by_topic: Mapping[str, int]
    oldest_seconds: float


class DeadLetters:
    """The dead letters of this database.

    Args:
        engine: the database `reporting`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, wanted: Wanted) -> list[DeadLetter]:
        """List up to `limit` dead letters, the newest first."""
        query = _SELECT.where(wanted.which.condition(_TABLE))
        if wanted.before is not None:
            query = query.where(_TABLE.c.id < wanted.before)
        return await self._read(query.order_by(_TABLE.c.id.desc()).limit(wanted.limit))

    async def chosen(self, which: Which) -> list[int]:
        """List the ids of those that are meant, in the order they were recorded."""
        async with self._engine.connect() as connection:
            return await find(connection, which, schema=SCHEMA)

    async def decided(self, letter: int) -> list[Decision]:
        """List what was decided about one, the oldest first."""
        async with self._engine.connect() as connection:
            return await decisions(connection, letter, schema=SCHEMA)

    async def outbox_rows(self, ids: Sequence[int]) -> dict[int, int]:
        """Give the ids of the outbox rows that dead letters of the relay come from."""
        query = select(_TABLE.c.id, _TABLE.c.headers).where(Which(ids=ids).condition(_TABLE))
        found: dict[int, int] = {}
        async with self._engine.connect() as connection:
            for letter, packed in await connection.execute(query):
                number = origin_row(unpack_any_headers(packed))
                if number is not None:
                    found[letter] = number
        return found

    async def close_published(self, consumer: str) -> int:
        """Close what was refused to the relay once and is known to `consumer` since."""
        async with self._engine.begin() as connection:
            return await close_published(connection, consumer, schema=SCHEMA)

    async def open(self) -> OpenLetters:
        """Count the open ones; every dead-letter topic of the contract is named."""
        table = _TABLE.c
        query = (
            select(
                table.topic,
                func.count(),
                func.extract("epoch", func.now() - func.min(table.recorded_at)),
            )
            .where(table.state == OPEN)
            .group_by(table.topic)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        counts = dict.fromkeys(DEAD_LETTER_TOPICS, 0) | {topic: count for topic, count, _ in rows}
        return OpenLetters(counts, max((float(age) for _, _, age in rows), default=0.0))

    async def _read(self, query: Select[Any]) -> list[DeadLetter]:
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).mappings().all()
        return [DeadLetter(**row) for row in rows]
