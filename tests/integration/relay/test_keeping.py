"""What one relay says of its outbox, and that it keeps it small."""

import asyncio
import math
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Message, RelayMetrics, status
from lethe_outbox.operations import requeuing
from lethe_outbox.operations.measuring import figures
from lethe_outbox.plans import guard
from lethe_outbox.relay.lane import Lane, Lease
from lethe_outbox.relay.sample import Sampler
from lethe_outbox.schema import Status
from tests.support.factories import TopicFactory
from tests.support.outbox_checker import judge
from tests.support.outbox_upkeep import bury, make_month, mark_sent, months_ago, names, put
from tests.support.outbox_world import (
    OUTBOX,
    QUICK,
    Running,
    append,
    drained,
    read_topics,
    running,
    stored,
)
from tests.support.waiting import until

OLD = months_ago(4)
RESTLESS = replace(QUICK, renew_seconds=0.2)
DILIGENT = replace(QUICK, janitor_seconds=0.2, janitor_lock_seconds=0.05)
SAMPLED = (
    "outbox_size_bytes",
    "outbox_dead_tuples",
    "outbox_default_rows",
    "outbox_overdue_partitions",
    "outbox_janitor_timestamp_seconds",
    "outbox_writer_open_seconds",
    "outbox_oldest_pending_seconds",
    "outbox_sample_timestamp_seconds",
)


async def age_the_janitor(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text("update lethe.outbox_upkeep set done_at = now() - interval '1 day'")
        )


async def test_a_relay_drops_what_is_old_and_publishes_on(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    old = await make_month(engine, OLD)
    async with engine.begin() as connection:
        ids = await put(connection, OLD, Message(name, "k", b"0"))
    await mark_sent(engine, ids, OLD)
    await append(engine, Message(name, "k", b"1"))
    await age_the_janitor(engine)
    async with running(database_url, kafka, DILIGENT) as relay:
        await until(lambda: _gone(engine, old))
        await append(engine, Message(name, "k", b"2"))
        await drained(engine)
        await until(lambda: relay.value("outbox_overdue_partitions") == 0)
    assert judge(await stored(engine), await read_topics(kafka, [name])) == []
    assert len(await stored(engine)) == 2


async def test_a_partition_with_an_unsent_row_is_published_first_and_dropped_when_that_is_old(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    old = await make_month(engine, OLD)
    async with engine.begin() as connection:
        sent, unsent = await put(
            connection, OLD, Message(name, "k", b"0"), Message(name, "k", b"1")
        )
    await mark_sent(engine, [sent], OLD)
    await age_the_janitor(engine)
    async with running(database_url, kafka, DILIGENT) as relay:
        await drained(engine)
        await relay.reach("outbox_overdue_partitions", 1)
        before = relay.value("outbox_janitor_timestamp_seconds") or math.inf
        await relay.reach("outbox_janitor_timestamp_seconds", before + 1)
        assert old in await names(engine)
        await mark_sent(engine, [unsent], OLD)
        # The relay's janitor remembers when the newest row was sent; another one looks itself.
    async with running(database_url, kafka, DILIGENT):
        await until(lambda: _gone(engine, old))
    records = await read_topics(kafka, [name])
    assert [record.event_id for record in records] != []
    assert len(records) == 1


async def _gone(engine: AsyncEngine, partition: str) -> bool:
    return partition not in await names(engine)


@pytest.fixture
async def relay(engine: AsyncEngine, database_url: str, kafka: str) -> AsyncIterator[Running]:
    del engine
    async with running(database_url, kafka, RESTLESS) as found:
        yield found


async def test_one_relay_says_how_large_the_outbox_is_and_the_others_nothing(
    engine: AsyncEngine, database_url: str, kafka: str, relay: Running
) -> None:
    async with engine.begin() as connection:
        for moment in (OLD, datetime.now(UTC) + timedelta(days=200)):
            await put(connection, moment, *(Message("no.topic", f"k{n}", b"") for n in range(3)))
    await relay.reach("outbox_default_rows", 1)
    assert relay.value("outbox_default_rows") == 3
    assert (relay.value("outbox_size_bytes") or 0) > 100_000
    assert relay.value("outbox_overdue_partitions") == 0
    async with running(database_url, kafka, RESTLESS) as other:
        await until(lambda: (other.value("relay_buckets_owned") or 0) > 0)
        await until(lambda: (relay.value("relay_buckets_owned") or 0) < 256)
        saying = [one for one in (relay, other) if one.value("outbox_size_bytes") is not None]
        assert len(saying) == 1
        (silent,) = {relay, other} - set(saying)
        assert [metric for metric in SAMPLED if silent.value(metric) is not None] == []
        assert silent.value("outbox_rows", status="sent") is None


async def test_what_cannot_be_known_is_nan_and_never_0(engine: AsyncEngine, relay: Running) -> None:
    await relay.reach("outbox_size_bytes", 1)
    async with engine.begin() as connection:
        await connection.execute(text("drop table lethe.outbox_upkeep"))
    await until(lambda: math.isnan(relay.value("outbox_size_bytes") or 0))
    for metric in set(SAMPLED) - {
        "outbox_sample_timestamp_seconds",
        "outbox_oldest_pending_seconds",
    }:
        assert math.isnan(relay.value(metric) or 0)
    assert math.isnan(relay.value("outbox_rows", status="sent") or 0)


async def test_the_age_of_an_open_writer_is_told_and_ends_with_it(
    engine: AsyncEngine, relay: Running
) -> None:
    async with engine.connect() as writer:
        await OUTBOX.append_async(writer, Message("t", "k", b""))
        await relay.reach("outbox_writer_open_seconds", 0.5)
        await writer.rollback()
    await until(lambda: relay.value("outbox_writer_open_seconds") == 0)


async def test_a_prepared_transaction_is_a_writer_with_its_own_age(engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await OUTBOX.append_async(connection, Message("t", "k", b""))
        await connection.execute(text("prepare transaction 'forgotten'"))
    try:
        found = await figures(engine)
        (since,) = found.writers.values()
        assert since is not None
        assert timedelta() <= found.taken_at - since < timedelta(minutes=5)
    finally:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("rollback prepared 'forgotten'"))
    assert (await figures(engine)).writers == {}


async def test_readers_and_other_tables_are_no_writers(engine: AsyncEngine) -> None:
    async with engine.connect() as reader, engine.connect() as other:
        await reader.execute(text("select count(*) from lethe.outbox"))
        await other.execute(text("create temp table elsewhere (n int)"))
        await other.execute(text("insert into elsewhere values (1)"))
        assert (await figures(engine)).writers == {}


async def test_estimates_follow_the_statistics(engine: AsyncEngine) -> None:
    ids = []
    async with engine.begin() as connection:
        for n in range(20):
            ids += await put(connection, datetime.now(UTC), Message("t", f"k{n}", b""))
    await mark_sent(engine, ids[:15], datetime.now(UTC))
    await bury(engine, ids[15], Status.DLT_FAILED)
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("analyze lethe.outbox"))
    found = await figures(engine)
    assert (found.rows, found.default_rows) == (20, 0)
    assert found.janitor_at is not None


@pytest.mark.parametrize("each", [199, 200, 1000])
async def test_a_backlog_is_counted_or_well_estimated_without_reading_it_whole(
    engine: AsyncEngine, each: int
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                "insert into lethe.outbox (event_id, topic, key, bucket, payload, headers)"
                " select gen_random_uuid(), 't', 'k', n % 8, '', ''"
                " from generate_series(1, :rows) n"
            ),
            {"rows": each * 8},
        )
    found = await status(engine)
    if each < 200:
        assert found.pending == each * 8
    else:
        assert abs(found.pending - each * 8) <= each * 8 / 50


async def test_a_look_at_a_backlog_follows_the_index_whatever_the_statistics_say(
    engine: AsyncEngine,
) -> None:
    """Sorting what a bucket holds to see its first rows takes seconds once it holds thousands."""
    insert = text(
        "insert into lethe.outbox (event_id, topic, key, bucket, payload, headers)"
        " select gen_random_uuid(), 't', 'k', n % 2, '', '' from generate_series(1, 4000) n"
    )
    async with engine.begin() as connection:
        await connection.execute(insert)
    plans = []

    def explain(connection: Connection) -> None:
        query = requeuing._pending(OUTBOX).params(first=0, last=7)
        literal = query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        guard(connection)
        found = connection.exec_driver_sql(f"explain (costs off) {literal}")
        plans.append("\n".join(row[0] for row in found))

    async with engine.connect() as connection:
        await connection.run_sync(explain)
    assert "Index Scan using" in plans[0]
    assert not re.search(r"Bitmap|Sort$", plans[0], re.MULTILINE), plans[0]


async def test_who_loses_the_first_lane_says_nothing_more(
    engine: AsyncEngine, database_url: str
) -> None:
    del engine
    registry = CollectorRegistry()
    sampler = Sampler("tested", database_url, "lethe", RelayMetrics(registry), QUICK)
    lane = Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 1)
    lanes = {0: lane}
    sampling = asyncio.create_task(sampler.run(lanes))

    def said() -> list[str]:
        labels = {"outbox": "tested"}
        return [m for m in SAMPLED if registry.get_sample_value(m, labels) is not None]

    await until(lambda: len(said()) == len(SAMPLED))
    lanes.clear()
    await until(lambda: not said())
    lanes[0] = lane
    await until(lambda: len(said()) == len(SAMPLED))
    sampling.cancel()
    await asyncio.wait([sampling])
    assert said() == []


@pytest.mark.parametrize("first", ["-infinity", "0044-03-15 BC"])
async def test_a_partition_whatever_its_bounds_ends_no_sampling(
    engine: AsyncEngine, database_url: str, first: str
) -> None:
    async with engine.begin() as connection:
        await connection.execute(
            text(
                f"create table lethe.outbox_before partition of lethe.outbox for values"
                f" from ('{first}') to ('2001-01-01')"
            )
        )
    registry = CollectorRegistry()
    sampler = Sampler("tested", database_url, "lethe", RelayMetrics(registry), QUICK)
    sampling = asyncio.create_task(sampler.run({0: Lane.claimed(0, [Lease(0, 1, 0, 0)], 0.0, 1)}))

    def overdue() -> float | None:
        return registry.get_sample_value("outbox_overdue_partitions", {"outbox": "tested"})

    await until(lambda: sampling.done() or overdue() is not None)
    assert not sampling.done()
    if first == "-infinity":
        assert overdue() == 1
    async with engine.begin() as connection:
        await connection.execute(text("drop table lethe.outbox_before"))
    await until(lambda: sampling.done() or overdue() == 0)
    assert not sampling.done()
    sampling.cancel()
    await asyncio.wait([sampling])
