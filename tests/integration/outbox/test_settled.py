"""Up to when everything appended is in Kafka, for whoever must not act on less."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from lethe_outbox import BUCKETS, Message, Status, bucket_of, settled_until
from tests.support.outbox_world import OUTBOX, append, lay

TOPIC = "settled"
ROW = OUTBOX.outbox


@pytest.fixture
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    lay(database_url)
    engine = create_async_engine(database_url)
    yield engine
    await engine.dispose()


async def moment(connection: AsyncConnection) -> datetime:
    found: datetime = (await connection.execute(text("select clock_timestamp()"))).scalar_one()
    return found


async def test_with_nothing_waiting_every_bucket_is_settled_until_now(engine: AsyncEngine) -> None:
    await append(engine, Message(TOPIC, "sent", b""))
    async with engine.begin() as connection:
        await connection.execute(update(ROW).values(status=Status.SENT))
    async with engine.begin() as connection:
        before = await moment(connection)
        settled = await settled_until(connection, TOPIC)
        after = await moment(connection)
    assert settled.keys() == set(range(BUCKETS))
    assert all(before <= until <= after for until in settled.values())


async def test_a_waiting_row_settles_its_bucket_no_later_than_it_was_written(
    engine: AsyncEngine,
) -> None:
    for number in range(3):
        await append(engine, Message(TOPIC, "waiting", str(number).encode()))
    async with engine.begin() as connection:
        first = (
            await connection.execute(text("select min(created_at) from lethe.outbox"))
        ).scalar()
        settled = await settled_until(connection, TOPIC)
    mine = bucket_of("waiting")
    assert settled[mine] == first
    assert all(until > first for bucket, until in settled.items() if bucket != mine)


async def test_a_waiting_row_of_the_future_leaves_its_bucket_out_until_it_is_sent(
    engine: AsyncEngine,
) -> None:
    """The clock was an hour ahead when it was written, and was set back."""
    await append(engine, Message(TOPIC, "waiting", b""))
    mine = bucket_of("waiting")
    async with engine.begin() as connection:
        ahead = {"created_at": ROW.c.created_at + timedelta(hours=1)}
        await connection.execute(update(ROW).values(ahead))
        settled = await settled_until(connection, TOPIC)
        assert set(range(BUCKETS)) - settled.keys() == {mine}
        assert max(settled.values()) <= await moment(connection)
        await connection.execute(update(ROW).values(status=Status.SENT))
    async with engine.begin() as connection:
        assert mine in await settled_until(connection, TOPIC)


async def test_a_row_that_is_not_committed_yet_holds_nothing_back_and_is_promised_nothing(
    engine: AsyncEngine,
) -> None:
    async with engine.connect() as open_, engine.connect() as asking:
        await OUTBOX.append_async(open_, Message(TOPIC, "late", b""))
        settled = await settled_until(asking, TOPIC)
        await open_.commit()
        committed = await moment(open_)
    assert settled[bucket_of("late")] < committed


async def test_a_bucket_with_a_refused_row_of_the_topic_is_left_out(engine: AsyncEngine) -> None:
    dead = OUTBOX.dead
    now = datetime.now(UTC)
    rows = [
        {"id": number, "bucket": bucket, "topic": topic, "key": "k", "status": Status.DLT_FAILED}
        for number, (bucket, topic) in enumerate([(7, TOPIC), (8, "another topic")])
    ]
    async with engine.begin() as connection:
        await connection.execute(
            insert(dead).values(
                created_at=now - timedelta(hours=1),
                event_id=text("gen_random_uuid()"),
                reason="refused",
                held=True,
            ),
            rows,
        )
        settled = await settled_until(connection, TOPIC)
    assert set(range(BUCKETS)) - settled.keys() == {7}
