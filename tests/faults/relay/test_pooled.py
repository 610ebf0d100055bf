"""Relays and writers behind pgbouncer in transaction mode: connections of nobody's own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from lethe_outbox import Message
from tests.support.factories import TopicFactory
from tests.support.outbox_world import (
    OUTBOX,
    append,
    append_apart,
    drained,
    events,
    key_in_lane,
    problems,
    running,
)
from tests.support.pooler import Pooler, pooler
from tests.support.relays import KEYS, Relays, more_sent, traffic
from tests.support.waiting import until


@pytest.fixture
def pool(database_url: str, tmp_path: Path, engine: AsyncEngine) -> Iterator[Pooler]:
    del engine  # the tables are there
    with pooler(database_url, tmp_path) as found:
        yield found


@pytest.fixture
async def pooled(pool: Pooler) -> AsyncIterator[AsyncEngine]:
    """For writers: what psycopg would prepare in one backend another does not know."""
    found = create_async_engine(pool.url, connect_args={"prepare_threshold": None})
    yield found
    await found.dispose()


async def test_a_late_commit_through_the_pooler_comes_before_later_rows_of_its_key(
    pool: Pooler, pooled: AsyncEngine, engine: AsyncEngine, kafka: str, topic: TopicFactory
) -> None:
    """A backend that served the relay may serve a writer next: it must be seen as one."""
    name = await topic()
    others = [key_in_lane(lane) for lane in range(16)]
    async with running(pool.url, kafka) as relay, pooled.connect() as late:
        for number in range(10):
            key = f"late-{number}"
            transaction = await late.begin()
            await OUTBOX.append_async(late, Message(name, key, b"first"))
            published = relay.value("relay_published_total", topic=name) or 0
            await append_apart(pooled, *events(name, others, 1))
            await relay.reach("relay_published_total", published + 16, topic=name)
            await transaction.commit()
            await append(pooled, Message(name, key, b"second"))
        await drained(engine)
        await until(lambda: relay.value("outbox_rows", status="pending") == 0)
    assert await problems(engine, kafka, [name]) == []


async def test_relays_behind_a_pooler_share_lanes_and_outlive_its_death(
    pool: Pooler, engine: AsyncEngine, kafka: str, topic: TopicFactory, tmp_path: Path
) -> None:
    name = await topic()
    relays = Relays(pool.url, kafka, tmp_path / "relay.log")
    try:
        async with traffic(engine, name):
            killed = relays.start()
            await more_sent(engine, 300)
            relays.start()
            await more_sent(engine, 300)
            pool.kill()
            pool.start()
            await more_sent(engine, 500)
            killed.kill()
            await more_sent(engine, 500)
        await drained(engine, within=60)
    finally:
        relays.end()
    assert await problems(engine, kafka, [name]) == []


async def test_a_relay_leaves_nothing_behind_in_the_pooler_s_connections(
    pool: Pooler, pooled: AsyncEngine, engine: AsyncEngine, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    shown = text("select current_setting('enable_seqscan'), current_setting('plan_cache_mode')")
    async with running(pool.url, kafka):
        await append_apart(pooled, *events(name, KEYS, 2))
        await drained(engine)
        for _ in range(20):
            async with pooled.connect() as connection:
                assert tuple((await connection.execute(shown)).one()) == ("on", "auto")
