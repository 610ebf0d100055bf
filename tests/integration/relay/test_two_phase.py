"""A transaction that is prepared and has no session any more is a writer like any other."""

from uuid import uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

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


async def test_a_writer_that_is_prepared_while_the_relay_has_passed_it_is_not_skipped(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    """What is prepared loses its session and keeps its place among the writers."""
    name = await topic()
    late, other = key_in_lane(5), key_in_lane(5, 1)
    prepared = f"outbox-{uuid4()}"
    async with running(database_url, kafka) as relay:
        async with engine.connect() as connection:
            await OUTBOX.append_async(connection, *events(name, [late], 1))
            # Open, and passed.
            for done in (1, 2, 3):
                await append_apart(engine, *events(name, [other], 1))
                await relay.reach("relay_acknowledged_total", done)
            await connection.execute(text(f"prepare transaction '{prepared}'"))
            await connection.commit()
        for done in (4, 5, 6):
            await append_apart(engine, *events(name, [other], 1))
            await relay.reach("relay_acknowledged_total", done)
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with autocommit.connect() as connection:
            await connection.execute(text(f"commit prepared '{prepared}'"))
        await append(engine, *events(name, [late], 1))
        await relay.reach("relay_acknowledged_total", 8)
        await drained(engine)

    records = await read_topics(kafka, [name])
    assert judge(await stored(engine), records) == []
    assert repetitions(records) == 0


async def test_what_a_prepared_transaction_wrote_is_neither_skipped_nor_overtaken(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    late, other = key_in_lane(5), key_in_lane(5, 1)
    prepared = f"outbox-{uuid4()}"
    async with running(database_url, kafka) as relay:
        async with engine.connect() as connection:
            await OUTBOX.append_async(connection, *events(name, [late], 1))
            await connection.execute(text(f"prepare transaction '{prepared}'"))
            await connection.commit()
        # The relay goes on beside it, past the id that the prepared transaction has drawn.
        for done in (1, 2, 3):
            await append_apart(engine, *events(name, [other], 1))
            await relay.reach("relay_acknowledged_total", done)
        autocommit = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with autocommit.connect() as connection:
            await connection.execute(text(f"commit prepared '{prepared}'"))
        await append(engine, *events(name, [late], 1))
        await relay.reach("relay_acknowledged_total", 5)
        await drained(engine)

    records = await read_topics(kafka, [name])
    assert judge(await stored(engine), records) == []
    assert repetitions(records) == 0
