"""What may pass by waiting: of one record it holds its partition, of the database everybody."""

from collections.abc import Sequence

import pytest
from aiokafka import TopicPartition
from aiokafka.structs import ConsumerRecord
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection
from uuid_utils.compat import uuid7

from lethe_outbox import Record
from lethe_outbox.consumer.polling import Again, Done, Progress
from lethe_outbox.message import EVENT_ID_HEADER
from tests.integration.outbox.consuming import Harness, effects, note


def consumed(topic: str, partition: int, offset: int, value: bytes) -> ConsumerRecord[bytes, bytes]:
    headers = ((EVENT_ID_HEADER, str(uuid7()).encode()),)
    return ConsumerRecord(topic, partition, offset, 0, 0, b"k", value, None, 1, 1, headers)


Polled = dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]


@pytest.fixture
def polled(harness: Harness) -> Polled:
    """Two records of each of two partitions; the last one of the first is special."""
    values = {0: (b"before", b"special"), 1: (b"1", b"2")}
    return {
        TopicPartition(harness.topic, partition): [
            consumed(harness.topic, partition, offset, value)
            for offset, value in enumerate(values[partition])
        ]
        for partition in values
    }


def by_number(progress: dict[TopicPartition, Progress]) -> dict[int, Progress]:
    return {place.partition: one for place, one in progress.items()}


async def test_a_row_that_somebody_locks_holds_the_partition_of_its_record_only(
    harness: Harness, polled: Polled
) -> None:
    async def wants_a_lock(connection: AsyncConnection, records: Sequence[Record]) -> None:
        if any(record.value == b"special" for record in records):
            await connection.execute(text("SET LOCAL lock_timeout = '10ms'"))
            await connection.execute(text("SELECT pg_advisory_xact_lock(7)"))
        await note(connection, records)

    runner = harness.runner(wants_a_lock)
    async with harness.engine.begin() as other:
        await other.execute(text("SELECT pg_advisory_xact_lock(7)"))
        progress = by_number(dict(await runner.work(polled)))
        assert progress == {0: Again(1), 1: Done(2)}
        assert sorted(await effects(harness.engine)) == ["1", "2", "before"]
    bad = TopicPartition(harness.topic, 0)
    progress = by_number(dict(await runner.work({bad: polled[bad][1:]})))
    assert progress == {0: Done(2)}
    assert sorted(await effects(harness.engine)) == ["1", "2", "before", "special"]
    assert harness.count("dead_lettered") == 0


async def test_a_database_that_is_away_is_asked_once_for_all_partitions(
    harness: Harness, polled: Polled
) -> None:
    asked = 0

    async def away(connection: AsyncConnection, records: Sequence[Record]) -> None:
        nonlocal asked
        del connection, records
        asked += 1
        raise OperationalError("statement", {}, Exception("the database went away"))

    progress = by_number(dict(await harness.runner(away).work(polled)))
    assert progress == {0: Again(0), 1: Again(0)}
    assert asked == 1
