"""What is appended arrives, in order per key, and the rows say so."""

from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Message
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge, repetitions
from tests.support.outbox_world import (
    append,
    drained,
    events,
    read_raw,
    read_topics,
    running,
    stored,
)


async def test_everything_appended_is_published_in_order_per_key(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    keys = [f"key-{n}" for n in range(50)]
    await append(engine, *events(name, keys, 20))
    async with running(database_url, kafka):
        await drained(engine)
        await append(engine, *events(name, keys, 5))
        await drained(engine)

    records = await read_topics(kafka, [name])
    assert judge(await stored(engine), records) == []
    assert len(records) == 50 * 25
    assert repetitions(records) == 0


async def test_a_record_carries_key_payload_headers_and_event_id(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    message = Message(name, "사람", b"\0\1\2", (("traceparent", b"00-1-2-01"),))
    await append(engine, message)
    async with running(database_url, kafka):
        await drained(engine)

    (record,) = await read_raw(kafka, [name])
    assert (record.key.decode(), record.value) == ("사람", b"\0\1\2")
    assert dict(record.headers) == {
        "traceparent": b"00-1-2-01",
        "ce_id": str(message.event_id).encode(),
    }
