"""Transactions that commit late: nothing is skipped, no key is inverted, nobody else waits."""

import asyncio

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Message
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge, repetitions
from tests.support.outbox_world import (
    OUTBOX,
    append,
    append_apart,
    drained,
    events,
    key_in_lane,
    read_topics,
    running,
    stored,
)
from tests.support.waiting import until


async def test_a_row_that_commits_late_comes_before_later_rows_of_its_key(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    """T1 (key k) holds id 1 open, id 2 of the same bucket's other key is published, T1 commits."""
    name = await topic()
    async with running(database_url, kafka) as relay, engine.connect() as late:
        for number in range(20):
            key = f"late-{number}"
            transaction = await late.begin()
            await OUTBOX.append_async(late, Message(name, key, b"first"))
            published = relay.value("relay_published_total", topic=name) or 0
            await append_apart(engine, *events(name, [key_in_lane(lane) for lane in range(16)], 1))
            await relay.reach("relay_published_total", published + 16, topic=name)
            await transaction.commit()
            await append(engine, Message(name, key, b"second"))
        await drained(engine)
    records = await read_topics(kafka, [name])
    assert judge(await stored(engine), records) == []
    assert repetitions(records) == 0


async def test_many_writers_of_few_keys_are_never_inverted(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()

    async def write(writer: int) -> None:
        for number in range(25):
            async with engine.begin() as connection:
                mine = Message(name, f"key-{(writer + number) % 5}", b"1")
                await OUTBOX.append_async(connection, mine)
                await connection.execute(text("select pg_sleep(:s)"), {"s": (writer % 4) / 200})
                if number % 7 == writer % 7:
                    await connection.rollback()

    async with running(database_url, kafka):
        await asyncio.gather(*(write(writer) for writer in range(12)))
        await drained(engine)
    records = await read_topics(kafka, [name])
    assert judge(await stored(engine), records) == []
    assert repetitions(records) == 0


async def test_rolled_back_rows_are_never_published(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    async with running(database_url, kafka):
        async with engine.connect() as connection:
            await OUTBOX.append_async(connection, *events(name, ["gone"], 3))
            await append_apart(engine, *events(name, ["stays"], 3))
            await drained(engine)
            await connection.rollback()
        await append_apart(engine, *events(name, ["stays"], 3))
        await drained(engine)
    records = await read_topics(kafka, [name])
    assert judge(await stored(engine), records) == []
    assert {record.key for record in records} == {"stays"}


async def test_open_transactions_hold_back_neither_others_nor_the_low_water_mark_for_ever(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    """One open writer of the outbox and one open reader of an old snapshot, beside traffic."""
    name = await topic()
    keys = [f"key-{n}" for n in range(40)]
    async with running(database_url, kafka) as relay, engine.connect() as writer:
        reader = await engine.connect()
        await reader.execution_options(isolation_level="REPEATABLE READ")
        await reader.execute(text("select count(*) from lethe.outbox"))
        await writer.begin()
        await OUTBOX.append_async(writer, Message(name, "slow", b"first"))
        for round_ in range(1, 21):
            await append_apart(engine, *events(name, keys, 5))
            await relay.reach("relay_acknowledged_total", round_ * 200, within=5)
        assert await _low_water(engine) == 0
        await writer.commit()
        await append(engine, Message(name, "slow", b"second"))
        await drained(engine)
        await reader.close()
        await until(lambda: _low_water(engine), within=15, what="a low-water mark that rises")
    records = await read_topics(kafka, [name])
    assert judge(await stored(engine), records) == []
    assert repetitions(records) == 0


async def _low_water(engine: AsyncEngine) -> int:
    async with engine.connect() as connection:
        lowest = await connection.scalar(text("select min(low_water) from lethe.outbox_bucket"))
    return int(lowest or 0)
