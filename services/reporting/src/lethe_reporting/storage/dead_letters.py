"""Reading the dead letters that the library's reader recorded; never their payload."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_contracts.topics import TOPICS, dead_letter_topic
from lethe_outbox import OutboxTables
from lethe_outbox.dead_letters import open_ids
from lethe_runtime.database import SCHEMA

DEAD_LETTER_TOPICS: Final = tuple(dead_letter_topic(topic) for topic in TOPICS)

_TABLE: Final = OutboxTables(SCHEMA).dead_letter


class State(StrEnum):
    """What became of a dead letter."""

    OPEN = "open"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


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
    state: str
    state_changed_at: datetime | None


_SELECT: Final = select(*(_TABLE.c[each.name] for each in fields(DeadLetter)))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are wanted; None means all."""

    state: State | None = None
    topic: str | None = None
    before: int | None = None
    """Only those recorded before this id."""
    limit: int = 50


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
        query = _SELECT
        if wanted.state is not None:
            query = query.where(_TABLE.c.state == wanted.state.value)
        if wanted.topic is not None:
            query = query.where(_TABLE.c.topic == wanted.topic)
        if wanted.before is not None:
            query = query.where(_TABLE.c.id < wanted.before)
        return await self._read(query.order_by(_TABLE.c.id.desc()).limit(wanted.limit))

    async def named(self, ids: Sequence[int]) -> list[DeadLetter]:
        """Look up dead letters by id; unknown ids are left out."""
        return await self._read(_SELECT.where(_TABLE.c.id.in_(ids)).order_by(_TABLE.c.id))

    async def open_ids(self, topic: str | None) -> list[int]:
        """List the open ones in the order they were recorded; of one topic, if named."""
        async with self._engine.connect() as connection:
            return await open_ids(connection, schema=SCHEMA, topic=topic)

    async def open(self) -> OpenLetters:
        """Count the open ones; every dead-letter topic of the contract is named."""
        table = _TABLE.c
        query = (
            select(
                table.topic,
                func.count(),
                func.extract("epoch", func.now() - func.min(table.recorded_at)),
            )
            .where(table.state == State.OPEN.value)
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
