"""What consuming costs, counted: statements do not grow with a batch, nor batches in bytes."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from uuid_utils.compat import uuid7

from lethe_outbox import ConsumerSettings, Record
from lethe_outbox.message import EVENT_ID_HEADER
from tests.integration.outbox.consuming import Harness, running
from tests.support.waiting import until

KIB = 1024


@contextmanager
def statements(engine: AsyncEngine) -> Iterator[list[str]]:
    """Every statement that is sent meanwhile, BEGIN and COMMIT left out."""
    sent: list[str] = []

    def note(*args: Any) -> None:
        sent.append(args[2])

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield sent
    event.remove(engine.sync_engine, "before_cursor_execute", note)


async def publish_many(kafka: str, topic: str, values: Sequence[bytes], **producer: Any) -> None:
    client = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=16 * KIB * KIB, **producer)
    await client.start()
    try:
        for value in values:
            headers = [(EVENT_ID_HEADER, str(uuid7()).encode())]
            await client.send(topic, value, key=b"k", headers=headers)
        await client.flush()
    finally:
        await client.stop()


@pytest.mark.parametrize("count", [1, 500])
async def test_a_batch_is_two_statements_whatever_its_size(
    harness: Harness, kafka: str, count: int
) -> None:
    batches: list[int] = []

    async def nothing(connection: AsyncConnection, records: Sequence[Record]) -> None:
        del connection
        batches.append(len(records))

    await publish_many(kafka, harness.topic, [b"x"] * count)
    with statements(harness.engine) as sent:
        async with running(harness.runner(nothing)):
            await until(lambda: harness.count("handled") == count)
    # One notes its events, one asks whether what the handler left can be committed.
    assert len(sent) == 2 * len(batches)
    assert sum("INSERT INTO" in one for one in sent) == len(batches)
    assert max(batches) >= min(count, 100)


async def test_a_batch_is_bounded_in_bytes_even_if_it_came_compressed(
    harness: Harness, kafka: str
) -> None:
    size, count = 256 * KIB, 200
    batches: list[int] = []

    async def weigh(connection: AsyncConnection, records: Sequence[Record]) -> None:
        del connection
        batches.append(sum(len(record.value or b"") for record in records))

    # Fifty megabytes that came over the wire as less than one.
    await publish_many(kafka, harness.topic, [b"\0" * size] * count, compression_type="gzip")
    settings = ConsumerSettings(poll_seconds=0.05, batch_bytes=1024 * KIB)
    async with running(harness.runner(weigh, settings=settings)):
        await until(lambda: harness.count("handled") == count, within=60)
    assert sum(batches) == size * count
    assert max(batches) <= 1024 * KIB


async def test_a_record_larger_than_every_bound_is_consumed(harness: Harness, kafka: str) -> None:
    settings = ConsumerSettings(
        poll_seconds=0.05, batch_bytes=KIB, buffer_bytes=KIB, fetch_bytes=KIB
    )
    values = [b"x" * 600 * KIB, b"y", b"z" * 600 * KIB]
    await publish_many(kafka, harness.topic, values)
    async with running(harness.runner(settings=settings)):
        await until(lambda: harness.count("handled") == 3)
