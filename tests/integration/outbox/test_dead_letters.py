"""Dead letters: recorded once, whatever they are, and brought back once."""

import asyncio
from functools import partial

from prometheus_client import CollectorRegistry
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import (
    ConsumerMetrics,
    DeadLetterReader,
    Fate,
    OutboxTables,
    ReplayOptions,
    Which,
    dead_letter_topic,
    initialise_group,
    replay,
)
from lethe_outbox.consumer.polling import PollSettings
from lethe_outbox.dead_letters.choosing import find
from tests.integration.outbox.conftest import Publish, ReadAll
from tests.support.factories import TopicFactory
from tests.support.waiting import until

TABLE = OutboxTables().dead_letter
QUICK = PollSettings(poll_seconds=0.05)


async def read_twice(engine: AsyncEngine, kafka: str, name: str, *, records: int) -> None:
    """Read a topic by two readers, of which the second does not know the first one's offsets."""
    for group in (f"first-{name}", f"second-{name}"):
        await initialise_group(kafka, group, [name])
        metrics = ConsumerMetrics(registry := CollectorRegistry())
        labels = {"group": group, "topic": name, "outcome": "handled"}
        read = partial(registry.get_sample_value, "outbox_consumer_records_total", labels)
        reader = DeadLetterReader(engine, kafka, group, [name], metrics, settings=QUICK)
        stop = asyncio.Event()
        task = asyncio.create_task(reader.run(stop))
        await until(lambda read=read: read() == records)  # type: ignore[misc] # of this turn
        stop.set()
        await asyncio.wait_for(task, 20)


async def test_what_is_read_is_recorded_as_it_is_and_only_once(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, publish: Publish
) -> None:
    name = await topic("orders.DLT", partitions=1)
    await publish(name, b"\x00 no headers", headers=())
    await publish(
        name,
        b"odd headers",
        headers=[
            ("error-reason", b"\xff\x00"),
            ("error-attempts", b"many"),
            ("error-refused-by", b"lethe-eraser"),
            # Python reads no number of so many digits.
            ("origin-offset", b"9" * 5000),
            ("ce_id", b"no id"),
            # In UTC these are years that no driver reads: every list of dead letters would fail.
            ("error-first-at", b"9999-12-31T23:59:59-23:59"),
            ("error-last-at", b"9999-12-31T23:59:59+00:00"),
        ],
    )
    await read_twice(engine, kafka, name, records=2)
    async with engine.connect() as connection:
        rows = (await connection.execute(select(TABLE).order_by(TABLE.c.offset))).all()
    assert [row.payload for row in rows] == [b"\x00 no headers", b"odd headers"]
    assert [row.reason for row in rows] == ["unknown", "\ufffd\ufffd"]
    assert [row.refused_by for row in rows] == [None, "lethe-eraser"]
    assert {row.state for row in rows} == {"open"}
    assert {(row.first_failed_at, row.last_failed_at) for row in rows} == {(None, None)}


async def test_a_topic_made_anew_hides_no_dead_letter(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, publish: Publish
) -> None:
    name = await topic("orders.DLT", partitions=1)
    earlier = {"topic": name, "partition": 0, "offset": 0, "reason": "earlier", "headers": b"[]"}
    async with engine.begin() as connection:
        await connection.execute(TABLE.insert(), earlier)
    await publish(name, b"new", headers=())
    await publish(name, b"behind it", headers=())
    await read_twice(engine, kafka, name, records=2)
    async with engine.connect() as connection:
        rows = (await connection.execute(select(TABLE).order_by(TABLE.c.id))).all()
    assert {(row.offset, row.payload, row.state) for row in rows} == {
        (-1 - rows[0].id, None, "open"),
        (0, b"new", "open"),
        (1, b"behind it", "open"),
    }
    assert len(rows) == 3


async def test_a_replay_publishes_the_original_once(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, publish: Publish, read_all: ReadAll
) -> None:
    origin = await topic("orders", partitions=2)
    dead = await topic(dead_letter_topic(origin), partitions=2)
    event_id = await publish(dead, b"unused")
    async with engine.begin() as connection:
        await connection.execute(
            TABLE.insert(),
            {
                "topic": dead,
                "partition": 0,
                "offset": 0,
                "key": b"k",
                "event_id": event_id,
                "reason": "of_the_test",
                "origin_topic": origin,
                "headers": b'[["ce_id", "MQ=="], ["error-reason", "eA=="], ["h", null]]',
                "payload": b"original \x00 bytes",
            },
        )
        ids = await find(connection, Which(state="open"))
    both = await asyncio.gather(
        *(replay(engine, kafka, ids, ReplayOptions(by="test")) for _ in range(2))
    )
    fates = sorted(fate for one in both for fate in one.values())
    assert fates == [Fate.REPLAYED, Fate.REPLAYED_BEFORE]
    (record,) = await read_all(origin)
    assert (record.key, record.value) == (b"k", b"original \x00 bytes")
    assert tuple(record.headers) == (("ce_id", b"1"), ("h", None))
    async with engine.connect() as connection:
        assert await find(connection, Which(state="open")) == []
