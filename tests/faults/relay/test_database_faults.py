"""A database that restarts, jumps in time, plans from old statistics, or holds writers open."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine

from lethe_outbox import Message, requeue
from lethe_outbox.operations.requeuing import refused
from lethe_outbox.relay.producer import Producer
from lethe_sandbox.stack import Stack
from tests.support.factories import TopicFactory
from tests.support.outbox_world import (
    OUTBOX,
    QUICK,
    append,
    append_apart,
    drained,
    events,
    key_in_lane,
    problems,
    running,
    stored,
)
from tests.support.poison import LARGE, SMALL, make_dlt, too_large
from tests.support.relays import KEYS, Relays, more_sent, sent, traffic
from tests.support.tcp_proxy import TcpProxy
from tests.support.topics import configure
from tests.support.waiting import until


@pytest.fixture
def postgres(running_stack: Stack) -> Iterator[Stack]:
    """The server, which answers again at the end whatever the test did to it."""
    yield running_stack
    running_stack.start("postgres")


async def test_a_server_that_is_killed_and_restarted_in_the_middle_of_work_loses_nothing(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays, postgres: Stack
) -> None:
    name = await topic()
    relays.start()
    for kill in (False, True):
        before = await sent(engine)
        await append_apart(engine, *events(name, KEYS, 40))
        await more_sent(engine, 200, than=before)
        await asyncio.to_thread(postgres.stop, "postgres", kill=kill)
        await asyncio.to_thread(postgres.start, "postgres")
        await engine.dispose()
    await append_apart(engine, *events(name, KEYS, 2))
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_the_database_s_clock_jumps_past_every_lease_and_back(
    engine: AsyncEngine, kafka: str, topic: TopicFactory, relays: Relays
) -> None:
    """Leases and heartbeats are all that the database's clock says: moving them moves it."""
    name = await topic()
    async with traffic(engine, name):
        for _ in range(2):
            relays.start()
            await more_sent(engine, 200)
        for hours in (-2, 2, -2):
            async with engine.begin() as connection:
                for statement in (
                    "update lethe.outbox_bucket set lease_until = lease_until + :hours",
                    "update lethe.outbox_relay set alive_until = alive_until + :hours",
                ):
                    moved = text(statement.replace(":hours", "make_interval(hours => :hours)"))
                    await connection.execute(moved, {"hours": hours})
            await more_sent(engine, 200)
    await drained(engine, within=60)
    assert await problems(engine, kafka, [name]) == []


async def test_a_backlog_on_a_table_that_was_analysed_empty_is_never_read_whole(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic()
    keys = [f"key-{number}" for number in range(500)]
    async with engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("alter system set autovacuum = off"))
        await connection.execute(text("select pg_reload_conf()"))
    try:
        async with engine.begin() as connection:
            await connection.execute(text("analyze lethe.outbox"))
        await append(engine, *events(name, keys, 200))
        before = await _whole_reads(engine)
        async with running(database_url, kafka) as relay:
            await relay.reach("relay_acknowledged_total", 100_000, within=120)
        assert await _whole_reads(engine) == before
    finally:
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("alter system reset autovacuum"))
            await connection.execute(text("select pg_reload_conf()"))
    assert await problems(engine, kafka, [name]) == []


async def _whole_reads(engine: AsyncEngine) -> int:
    """How often a partition with rows was read from end to end."""
    async with engine.connect() as connection:
        await connection.execute(text("select pg_stat_force_next_flush()"))
        scans = await connection.scalar(
            text(
                "select coalesce(sum(seq_scan), 0) from pg_stat_user_tables"
                " where relname like 'outbox\\_2%'"
            )
        )
    return int(scans or 0)


async def test_a_prepared_transaction_is_a_writer_and_holds_nobody_else_back(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    """Its holder has no process: only its lock says that it is there."""
    name = await topic()
    others = [key_in_lane(lane) for lane in range(16)]
    async with running(database_url, kafka) as relay:
        async with engine.connect() as connection:
            await connection.begin()
            await OUTBOX.append_async(connection, Message(name, "late", b"first"))
            await connection.execute(text("prepare transaction 'late'"))
            await connection.rollback()
        for rounds in range(1, 4):
            await append_apart(engine, *events(name, others, 1))
            await relay.reach("relay_published_total", 16 * rounds, topic=name)
        async with engine.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("commit prepared 'late'"))
        await append(engine, Message(name, "late", b"second"))
        await drained(engine)
    assert await problems(engine, kafka, [name]) == []


async def test_a_requeued_row_comes_behind_later_ones_only_if_somebody_said_so(
    engine: AsyncEngine, database_url: str, kafka: str, topic: TopicFactory
) -> None:
    name = await topic(config=SMALL)
    key = KEYS[0]
    await append(engine, *events(name, [key], 2), too_large(name, key), *events(name, [key], 5))
    async with running(database_url, kafka):
        await drained(engine)
        (dead,) = await refused(engine)
        async with engine.begin() as connection:
            await connection.execute(text("update lethe.outbox set payload = 'x' where id = 3"))
            assert await requeue(connection, [dead.id], accept_reorder=True) == 1
        await drained(engine)
    found = await problems(engine, kafka, [name])
    assert len(found) == 1
    assert "out of order" in found[0]
    assert await problems(engine, kafka, [name], reordered=[dead.id]) == []
    assert len(await stored(engine)) == 8


async def test_what_a_relay_queued_leaves_no_more_once_its_session_is_gone(
    engine: AsyncEngine,
    database_url: str,
    kafka: str,
    topic: TopicFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is succeeded at once, and what was refused to the other one may be taken by then."""
    queued: list[tuple[Producer, asyncio.Future[Any]]] = []
    hand_over = Producer.hand_over

    async def noted(producer: Producer, *batch: Any) -> Any:
        found = await hand_over(producer, *batch)
        queued.append((producer, found))
        return found

    async def not_ready(*_: object, **__: object) -> bool:
        return False

    name, key = await topic(config=SMALL), KEYS[0]
    await make_dlt(kafka, name)
    there = make_url(database_url)
    proxy = TcpProxy(there.host or "", there.port or 5432)
    async with proxy.running():
        by_proxy = there.set(host="127.0.0.1", port=proxy.port)
        by_proxy_url = by_proxy.render_as_string(hide_password=False)
        async with running(by_proxy_url, kafka, replace(QUICK, lease_seconds=60)):
            await append(engine, *events(name, [key], 1))
            await drained(engine)
            monkeypatch.setattr(Producer, "hand_over", noted)
            monkeypatch.setattr("aiokafka.client.AIOKafkaClient.ready", not_ready)
            await append(engine, too_large(name, key), *events(name, [key], 5))
            await until(lambda: queued, what="a batch that waits for its connection")
            monkeypatch.undo()
            ((producer, waiting),) = queued
            monkeypatch.setattr(producer._kafka.client, "ready", not_ready)
            proxy.close()
            async with running(database_url, kafka):
                await drained(engine)
            await configure(kafka, name, LARGE)
            monkeypatch.undo()
            await until(waiting.done, what="the end of what the first relay queued")
            proxy.open()
    assert await problems(engine, kafka, [name, f"{name}.DLT"]) == []
