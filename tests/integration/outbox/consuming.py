"""A consumer runner under test: its topics, its group, and a handler that leaves rows behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from lethe_outbox import (
    ConsumerMetrics,
    ConsumerRunner,
    ConsumerSettings,
    DeadLetterReader,
    Inbox,
    PoisonError,
    Record,
    TopicSpec,
    bucket_of,
    dead_letter_topic,
    ensure_topics,
)
from lethe_outbox.consumer.quarantine import OnDeadLetter
from lethe_outbox.consumer.runner import Handler

SETTINGS = ConsumerSettings(poll_seconds=0.05, first_pause=0.02, longest_pause=0.2, attempts=3)


async def note(connection: AsyncConnection, records: Sequence[Record]) -> None:
    """A handler: poison is refused, everything else leaves one row."""
    for record in records:
        if record.value == b"poison":
            raise PoisonError("of_the_test")
        if record.value == b"defect":
            raise KeyError("a defect of the handler")
        await connection.execute(
            text("INSERT INTO effect VALUES (:id, :value)"),
            {"id": record.event_id, "value": (record.value or b"").decode()},
        )


async def effects(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as connection:
        return list((await connection.execute(text("SELECT value FROM effect"))).scalars())


class Harness:
    """A topic with its dead-letter topic, a group, and a runner to start on them."""

    def __init__(self, engine: AsyncEngine, kafka: str, topic: str) -> None:
        self.engine = engine
        self.kafka = kafka
        self.topic = topic
        self.group = f"group-{topic}"
        self.registry = CollectorRegistry()
        self.metrics = ConsumerMetrics(self.registry)

    def runner(
        self,
        handler: Handler = note,
        *,
        inbox: Inbox | None = None,
        settings: ConsumerSettings = SETTINGS,
        on_dead_letter: OnDeadLetter | None = None,
    ) -> ConsumerRunner:
        return ConsumerRunner(
            self.engine,
            self.kafka,
            self.group,
            [self.topic],
            handler,
            inbox or Inbox(),
            self.metrics,
            settings=settings,
            on_dead_letter=on_dead_letter,
        )

    def count(self, outcome: str) -> float:
        labels = {"group": self.group, "topic": self.topic, "outcome": outcome}
        return self.registry.get_sample_value("outbox_consumer_records_total", labels) or 0

    def gauge(self, name: str) -> float | None:
        return self.registry.get_sample_value(name, {"group": self.group, "topic": self.topic})


@asynccontextmanager
async def running(runner: ConsumerRunner | DeadLetterReader) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(runner.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 20)


async def dead_letter_topic_for(kafka: str, name: str) -> None:
    await ensure_topics(kafka, [TopicSpec(dead_letter_topic(name), 2)])


def key_of(partition: int) -> bytes:
    """A key that belongs to one of two partitions."""
    return next(f"k{n}".encode() for n in range(1000) if bucket_of(f"k{n}") % 2 == partition)


Spoil = Callable[[AsyncConnection], Awaitable[None]]
"""What makes a transaction one that keeps nothing."""


async def swallowed(connection: AsyncConnection) -> None:
    with contextlib.suppress(DBAPIError):
        await connection.execute(text("SELECT 1/0"))


async def ended_by_hand(connection: AsyncConnection) -> None:
    await connection.execute(text("ROLLBACK"))
