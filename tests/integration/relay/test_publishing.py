"""What is appended arrives, in order per key, and the rows say so."""

import asyncio
from functools import partial

from prometheus_client import CollectorRegistry
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lethe_outbox import Message, Outbox, Relay, RelayMetrics, status
from lethe_outbox.migrations import create_outbox
from tests.support.databases import lay
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge, repetitions
from tests.support.outbox_world import (
    QUICK,
    append,
    drained,
    events,
    read_topics,
    running,
    stored,
)
from tests.support.topics import read_raw
from tests.support.waiting import until


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


async def test_the_tables_may_stand_in_any_schema(
    database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    schema = "Shop data"
    lay(database_url, partial(create_outbox, schema=schema))
    stop = asyncio.Event()
    relay = Relay(
        "odd", database_url, kafka, schema=schema, metrics=RelayMetrics(CollectorRegistry())
    )
    running_relay = asyncio.create_task(relay.run(stop))
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await Outbox(schema).append_async(connection, Message(name, "k", b"1"))

    async def sent() -> bool:
        return (await status(engine, schema)).pending == 0

    await until(sent)
    stop.set()
    await running_relay
    await engine.dispose()
    assert len(await read_topics(kafka, [name])) == 1


async def test_a_database_that_takes_no_writes_for_a_while_is_waited_for(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    """As a standby does that a failover's address leads to, and a server that somebody set so."""
    name = await topic()
    database = engine.url.database
    seen: list[tuple[str, str, str]] = []
    set_to = f'ALTER DATABASE "{database}" {{}}'
    stop = asyncio.Event()
    await append(engine, *events(name, ["k"], 1))
    async with engine.begin() as connection:
        await connection.execute(text(set_to.format("SET default_transaction_read_only = on")))
    await engine.dispose()
    relay = Relay(
        "shop",
        database_url,
        kafka,
        metrics=RelayMetrics(CollectorRegistry()),
        settings=QUICK,
        on_state=lambda *told: seen.append(told),
    )
    publishing = asyncio.create_task(relay.run(stop))
    away = ("database", "away", "ReadOnlySqlTransaction")
    await until(lambda: publishing.done() or away in seen)
    async with engine.begin() as connection:
        await connection.execute(text("SET TRANSACTION READ WRITE"))
        await connection.execute(text(set_to.format("RESET default_transaction_read_only")))
    await engine.dispose()
    await drained(engine)
    stop.set()
    await asyncio.wait_for(publishing, 20)
