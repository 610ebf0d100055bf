"""Two outboxes, relays, brokers and consumers: in memory and on real servers, said in one way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, Protocol
from uuid import uuid4

from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lethe_outbox import (
    ConsumerMetrics,
    ConsumerRunner,
    Inbox,
    Outbox,
    Record,
    Relay,
    RelayMetrics,
    RelaySettings,
    Status,
    TopicSpec,
    dead_letter_topic,
    ensure_topics,
    initialise_group,
    requeue,
)
from lethe_outbox.consumer.runner import ConsumerSettings
from lethe_outbox.migrations import create_inbox, create_outbox
from lethe_outbox.testing import (
    MemoryBroker,
    MemoryConsumer,
    MemoryInbox,
    MemoryOutbox,
    MemoryRelay,
    MemoryTransaction,
)
from lethe_outbox.testing.transactions import on_commit
from tests.support.databases import lay
from tests.support.topics import read_raw
from tests.support.waiting import until

ODD_SCHEMA: Final = """Odd "schema": 100% 'Größe' {0} \\x"""
PARTITIONS: Final = 4
ATTEMPTS: Final = 3

Handle = Callable[[Any, Sequence[Record]], Awaitable[None]]


class Row(NamedTuple):
    """A row of the outbox, in the order of appending."""

    key: str
    payload: bytes
    status: Status


@dataclass(frozen=True)
class Seen:
    """A record of a topic; those of one partition in their order."""

    key: str
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    partition: int

    def header(self, name: str) -> str:
        return dict(self.headers)[name].decode()


class World(Protocol):
    @property
    def outbox(self) -> Outbox: ...

    @property
    def inbox(self) -> Inbox: ...

    def transaction(self) -> AbstractAsyncContextManager[Any]: ...

    def savepoint(self, connection: Any) -> AbstractAsyncContextManager[Any]: ...

    async def topic(
        self, *, limit: int | None = None, dead_letters: bool = True, name: str | None = None
    ) -> str: ...

    async def publish(self, *, hold_back: Sequence[str] = ()) -> None:
        """Publish until nothing is pending but what is held back."""

    async def forget_sent(self) -> None:
        """Let every sent row be pending, as if no acknowledgement had reached the database."""

    async def requeue(self, *, accept_reorder: bool = False) -> int: ...

    async def rows(self) -> list[Row]: ...

    async def records(self, topic: str) -> list[Seen]: ...

    async def send(self, topic: str, key: bytes, value: bytes) -> None:
        """Send a record that is none of the outbox's."""

    async def effect(self, connection: Any, value: str) -> None:
        """Do something that commits with `connection`."""

    async def effects(self) -> list[str]: ...

    async def consume(
        self,
        topic: str,
        handle: Handle,
        reached: Callable[[], Awaitable[bool]],
        *,
        transient: tuple[type[Exception], ...] = (),
    ) -> None:
        """Consume a topic from where this group was, until `reached`."""


class MemoryWorld:
    def __init__(self) -> None:
        self.outbox = MemoryOutbox()
        self.inbox = MemoryInbox()
        self._broker = MemoryBroker()
        self._effects: list[str] = []

    def transaction(self) -> MemoryTransaction:
        return MemoryTransaction()

    @asynccontextmanager
    async def savepoint(self, connection: Any) -> AsyncIterator[None]:
        with connection.begin_nested():
            yield

    async def topic(
        self, *, limit: int | None = None, dead_letters: bool = True, name: str | None = None
    ) -> str:
        made = name or f"topic.{uuid4().hex}"
        self._broker.create_topic(
            made,
            partitions=PARTITIONS,
            max_message_bytes=limit or 1_048_588,
            with_dead_letters=dead_letters,
        )
        return made

    async def publish(self, *, hold_back: Sequence[str] = ()) -> None:
        MemoryRelay(self.outbox, self._broker, hold_back_topics=hold_back).publish()

    async def forget_sent(self) -> None:
        for row in self.outbox.rows:
            if row.status is Status.SENT:
                row.status = Status.PENDING

    async def requeue(self, *, accept_reorder: bool = False) -> int:
        return MemoryRelay(self.outbox, self._broker).requeue(accept_reorder=accept_reorder)

    async def rows(self) -> list[Row]:
        return [Row(row.message.key, row.message.payload, row.status) for row in self.outbox.rows]

    async def records(self, topic: str) -> list[Seen]:
        return [
            Seen(
                (one.key or b"").decode(),
                one.value or b"",
                tuple((name, value or b"") for name, value in one.headers),
                one.partition,
            )
            for one in self._broker.records(topic)
        ]

    async def send(self, topic: str, key: bytes, value: bytes) -> None:
        self._broker.send(topic, key, value)

    async def effect(self, connection: Any, value: str) -> None:
        on_commit(connection, lambda: self._effects.append(value))

    async def effects(self) -> list[str]:
        return list(self._effects)

    async def consume(
        self,
        topic: str,
        handle: Handle,
        reached: Callable[[], Awaitable[bool]],
        *,
        transient: tuple[type[Exception], ...] = (),
    ) -> None:
        consumer = MemoryConsumer(
            self._broker,
            f"group.{topic}",
            [topic],
            handle,
            inbox=self.inbox,
            settings=ConsumerSettings(attempts=ATTEMPTS),
            transient=transient,
        )
        for _ in range(20):
            await consumer.consume()
        assert await reached()


class RealWorld:
    def __init__(self, url: str, bootstrap: str, engine: AsyncEngine) -> None:
        self.outbox = Outbox(ODD_SCHEMA)
        self.inbox = Inbox(ODD_SCHEMA)
        self._url = url
        self._bootstrap = bootstrap
        self._engine = engine

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        return self._engine.begin()

    def savepoint(self, connection: Any) -> AbstractAsyncContextManager[Any]:
        found: AbstractAsyncContextManager[Any] = connection.begin_nested()
        return found

    async def topic(
        self, *, limit: int | None = None, dead_letters: bool = True, name: str | None = None
    ) -> str:
        made = name or f"topic.{uuid4().hex}"
        config = {"max.message.bytes": str(limit)} if limit else {}
        specs = [TopicSpec(made, PARTITIONS, config)]
        if dead_letters:
            specs.append(TopicSpec(dead_letter_topic(made), PARTITIONS))
        await ensure_topics(self._bootstrap, specs)
        return made

    async def publish(self, *, hold_back: Sequence[str] = ()) -> None:
        relay = Relay(
            "contract",
            self._url,
            self._bootstrap,
            schema=ODD_SCHEMA,
            metrics=RelayMetrics(CollectorRegistry()),
            settings=RelaySettings(
                hold_back_topics=frozenset(hold_back), unknown_topic_seconds=0.5
            ),
        )
        async with _until_left(relay.run):
            await until(self._idle, what="an outbox with nothing to publish")

    async def _idle(self) -> bool:
        outbox, dead = self.outbox.outbox, self.outbox.dead
        held = (
            select(dead.c.id)
            .where(dead.c.held, dead.c.key == outbox.c.key, dead.c.topic == outbox.c.topic)
            .exists()
        )
        waiting = select(outbox.c.id).where(outbox.c.status == int(Status.PENDING), ~held)
        async with self._engine.connect() as connection:
            return (await connection.execute(waiting.limit(1))).first() is None

    async def forget_sent(self) -> None:
        outbox, bucket = self.outbox.outbox, self.outbox.bucket
        async with self._engine.begin() as connection:
            sent = outbox.c.status == int(Status.SENT)
            await connection.execute(update(outbox).where(sent).values(status=0, sent_at=None))
            await connection.execute(
                update(bucket).values(low_water=0, rewinds=bucket.c.rewinds + 1)
            )

    async def requeue(self, *, accept_reorder: bool = False) -> int:
        async with self._engine.begin() as connection:
            return await requeue(connection, accept_reorder=accept_reorder, schema=ODD_SCHEMA)

    async def rows(self) -> list[Row]:
        table = self.outbox.outbox
        wanted = select(table.c.key, table.c.payload, table.c.status).order_by(table.c.id)
        async with self._engine.connect() as connection:
            found = await connection.execute(wanted)
            return [Row(key, payload, Status(status)) for key, payload, status in found]

    async def records(self, topic: str) -> list[Seen]:
        return [
            Seen(one.key.decode(), one.value, tuple(one.headers), one.partition)
            for one in await read_raw(self._bootstrap, [topic])
        ]

    async def send(self, topic: str, key: bytes, value: bytes) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._bootstrap)
        await producer.start()
        try:
            await producer.send_and_wait(topic, value, key=key)
        finally:
            await producer.stop()

    async def effect(self, connection: Any, value: str) -> None:
        await connection.execute(text("INSERT INTO effect (value) VALUES (:v)"), {"v": value})

    async def effects(self) -> list[str]:
        async with self._engine.connect() as connection:
            found = await connection.execute(text("SELECT value FROM effect ORDER BY place"))
            return [str(value) for value in found.scalars()]

    async def consume(
        self,
        topic: str,
        handle: Handle,
        reached: Callable[[], Awaitable[bool]],
        *,
        transient: tuple[type[Exception], ...] = (),
    ) -> None:
        group = f"group.{topic}"
        await initialise_group(self._bootstrap, group, [topic])
        runner = ConsumerRunner(
            self._engine,
            self._bootstrap,
            group,
            [topic],
            handle,
            self.inbox,
            ConsumerMetrics(CollectorRegistry()),
            settings=ConsumerSettings(attempts=ATTEMPTS, first_pause=0.01),
            transient=transient,
        )
        async with _until_left(runner.run):
            await until(reached, what="what was to be consumed")


@asynccontextmanager
async def _until_left(run: Callable[[asyncio.Event], Awaitable[None]]) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.ensure_future(run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


@asynccontextmanager
async def real_world(url: str, bootstrap: str) -> AsyncIterator[RealWorld]:
    effect = "CREATE TABLE effect (place bigint GENERATED ALWAYS AS IDENTITY, value text)"
    lay(
        url,
        partial(create_outbox, schema=ODD_SCHEMA),
        partial(create_inbox, schema=ODD_SCHEMA),
        lambda op: op.execute(effect),
    )
    engine = create_async_engine(url)
    try:
        yield RealWorld(url, bootstrap, engine)
    finally:
        await engine.dispose()
