"""Reading the dead letters that the library's reader recorded; never their payload."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_contracts.topics import TOPICS, dead_letter_topic
from lethe_outbox import OutboxTables
from lethe_runtime.database import SCHEMA

DEAD_LETTER_TOPICS: Final = tuple(dead_letter_topic(topic) for topic in TOPICS)

_TABLE: Final = OutboxTables(SCHEMA).dead_letter
_SHOWN: Final = (
    "id",
    "topic",
    "partition",
    "offset",
    "key",
    "event_id",
    "reason",
    "error_class",
    "attempts",
    "origin_topic",
    "origin_partition",
    "origin_offset",
    "first_failed_at",
    "last_failed_at",
    "recorded_at",
    "state",
    "state_changed_at",
)


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
    attempts: int | None
    origin_topic: str | None
    origin_partition: int | None
    origin_offset: int | None
    first_failed_at: datetime | None
    last_failed_at: datetime | None
    recorded_at: datetime
    state: str
    state_changed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which dead letters are wanted; None means all."""

    state: str | None = None
    topic: str | None = None
    before: int | None = None
    """Only those recorded before this id."""
    limit: int = 50


@dataclass(frozen=True, slots=True)
class OpenLetters:
    """How many dead letters wait for a decision, by topic, and how long the oldest has."""

    by_topic: Mapping[str, int]
    oldest_seconds: float


async def listed(connection: AsyncConnection, wanted: Wanted) -> list[DeadLetter]:
    """List up to `limit` dead letters, the newest first."""
    rows = (await connection.execute(_query(wanted))).mappings().all()
    return [DeadLetter(**row) for row in rows]


async def states(connection: AsyncConnection, ids: list[int]) -> dict[int, str]:
    """Say how dead letters stand, by id; unknown ids are left out."""
    query = select(_TABLE.c.id, _TABLE.c.state).where(_TABLE.c.id.in_(ids))
    return {row.id: row.state for row in await connection.execute(query)}


class DeadLetters:
    """The dead letters of this database.

    Args:
        engine: the database `reporting`.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def page(self, wanted: Wanted) -> list[DeadLetter]:
        """List up to `limit` dead letters, the newest first."""
        async with self._engine.connect() as connection:
            return await listed(connection, wanted)

    async def open(self) -> OpenLetters:
        """Count the open ones; every dead-letter topic of the contract is named."""
        table = _TABLE.c
        query = (
            select(
                table.topic,
                func.count(),
                func.extract("epoch", func.now() - func.min(table.recorded_at)),
            )
            .where(table.state == "open")
            .group_by(table.topic)
        )
        async with self._engine.connect() as connection:
            rows = (await connection.execute(query)).all()
        counts = dict.fromkeys(DEAD_LETTER_TOPICS, 0) | {topic: count for topic, count, _ in rows}
        return OpenLetters(counts, max((float(age) for _, _, age in rows), default=0.0))


def _query(wanted: Wanted) -> Select[Any]:
    query = select(*(_TABLE.c[name] for name in _SHOWN)).order_by(_TABLE.c.id.desc())
    if wanted.state is not None:
        query = query.where(_TABLE.c.state == wanted.state)
    if wanted.topic is not None:
        query = query.where(_TABLE.c.topic == wanted.topic)
    if wanted.before is not None:
        query = query.where(_TABLE.c.id < wanted.before)
    return query.limit(wanted.limit)
