"""A database with the library's tables, and producers and consumers of the tests' own."""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any
from uuid import UUID

import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from uuid_utils.compat import uuid7

from lethe_outbox import initialise_group
from lethe_outbox.message import EVENT_ID_HEADER
from lethe_outbox.migrations import PARTS
from tests.integration.outbox.consuming import Harness, dead_letter_topic_for
from tests.support.databases import lay
from tests.support.factories import TopicFactory
from tests.support.topics import read_raw

Publish = Callable[..., Awaitable[UUID]]
ReadAll = Callable[[str], Awaitable[list[Any]]]


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    lay(
        database_url,
        *itertools.chain.from_iterable(PARTS.values()),
        lambda op: op.execute("CREATE TABLE effect (event_id uuid, value text)"),
    )
    found = create_async_engine(database_url)
    yield found
    await found.dispose()


@pytest.fixture
async def publish(kafka: str) -> AsyncIterator[Publish]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, acks="all")
    await producer.start()

    async def one(
        topic: str,
        value: bytes,
        *,
        key: bytes = b"k",
        event_id: UUID | None = None,
        headers: Sequence[tuple[str, bytes]] | None = None,
    ) -> UUID:
        made = event_id or uuid7()
        found = [(EVENT_ID_HEADER, str(made).encode())] if headers is None else list(headers)
        await producer.send_and_wait(topic, value, key=key, headers=found)
        return made

    yield one
    await producer.stop()


@pytest.fixture
def read_all(kafka: str) -> ReadAll:
    """Read every record that a topic holds at this moment."""
    return lambda topic: read_raw(kafka, [topic])


@pytest.fixture
async def harness(engine: AsyncEngine, kafka: str, topic: TopicFactory) -> Harness:
    name = await topic("orders", partitions=2)
    await dead_letter_topic_for(kafka, name)
    made = Harness(engine, kafka, name)
    await initialise_group(kafka, made.group, [name])
    return made
